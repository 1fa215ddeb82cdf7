"""What a storage area and its host can do for rights on files, in facts and in words."""

from __future__ import annotations

from pydantic import Field

from beamkeeper.domain.names import Model


class FileRights(Model):
    """What a storage area and its host can do for rights on files."""

    has_acls: bool = Field(description="Whether it keeps access control lists.")
    may_give: bool = Field(description="Whether the service may give files to the groups of experiments.")
    unknown_gids: tuple[int, ...] = Field(default=(), description="Groups of experiments that the host does not know.")

    @property
    def sentence(self) -> str:
        """What follows from it, in words."""
        if self.may_give and self.has_acls:
            said = "files belong to the experiment's group, and access control lists hold against any umask"
        elif self.may_give:
            said = (
                "files belong to the experiment's group; no access control lists here, so the umask counts in analysis/"
            )
        elif self.has_acls:
            said = "the experiment's group is named in access control lists: the service may not give files to groups"
        else:
            said = (
                "groups get no rights here: the service may not give files to groups (it lacks CAP_CHOWN and "
                "CAP_FSETID, and is not of them), and the file system keeps no access control lists"
            )
        if self.unknown_gids:
            said += (
                f"; this host knows no group {', '.join(map(str, self.unknown_gids))}: is the directory in nsswitch?"
            )
        return said
