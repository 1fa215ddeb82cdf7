"""Replicas beyond the first: what is asked for, what is still to be done for each, and what is there."""

from beamkeeper.db.replicas.listing import Replicas
from beamkeeper.db.replicas.orders import ReplicaOrders
from beamkeeper.db.replicas.requests import ReplicaRequests

__all__ = ["ReplicaOrders", "ReplicaRequests", "Replicas"]
