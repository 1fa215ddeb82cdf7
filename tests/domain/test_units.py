"""Units: what files write is understood, what is no unit is nothing, and nothing is worked out as an expression."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from beamkeeper.domain.units import SiValue, quantity_of, same_photon, to_si


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((12.4, "keV"), (12400, "eV")),
        ((16.9, "keV"), (16900.0, "ev")),
        ((16.9, "KeV"), (0.0169, "MeV")),
        ((1.54, "Angstrom"), (1.54, "angstroms")),
        ((1.54, "Å"), (0.154, "nm")),
        ((1.54, "\u212b"), (1.54, "Ang")),
        ((2, "deg"), (2000, "mdeg")),
        ((180, "degrees"), (math.pi, "rad")),
        ((180, "°"), (180, "Degree")),
        ((5, "um"), (5, "\u00b5m")),
        ((5, "\u03bcm"), (5, "microns")),
        ((5, "count/s"), (5, "Hz")),
        ((5, "cps"), (5, "counts s-1")),
        ((5, "ph/s"), (0.005, "kHz")),
        ((200, "mA"), (0.2, "Amps")),
        ((5, "counts/(s*mA)"), (5000, "counts s^-1 A^(-1)")),
        ((1, "Torr"), (1, "torr")),
        ((1, "bar"), (1000, "mbar")),
        ((1, "GB"), (1e9, "byte")),
        ((20, "degC"), (293.15, "K")),
        ((20, "Celsius"), (20, "°C")),
        ((1, "1/angstrom"), (10, "nm^-1")),
        ((1, "A^-1"), (1, "angstrom-1")),
        ((1, "m**2"), (1, "m2")),
        ((1, "10 mm"), (1, "cm")),
        ((1, "Volts"), (1000, "mV")),
        ((50, "%"), (0.5, "dimensionless")),
    ],
)
def test_two_spellings_of_one_value_are_one_value(one: tuple[float, str], other: tuple[float, str]) -> None:
    assert to_si(*one) is not None
    assert to_si(*one) == to_si(*other)


def test_the_dimension_is_text_that_people_know() -> None:
    assert to_si(1, "keV") == SiValue(1.602176634e-16, "kg m2 s-2")
    assert to_si(1, "deg") == SiValue(0.0174532925199, "rad")
    assert to_si(3, "counts") == SiValue(3, "1")
    assert to_si(7, "px") == SiValue(7, "pixel")


@pytest.mark.parametrize(
    "unit",
    [
        "",
        " ",
        "9**9**9",
        "m^99",
        "m" * 65,
        "(" * 32 + "m" + ")" * 32,
        "__import__('os')",
        "m if 1 else s",
        "m;s",
        "m\0",
        "(m",
        "m)",
        "m/",
        "/m",
        "()",
        "0 m",
        "2 degC",
        "dBm",
        "a.u.",
        "r.l.u.",
        "NX_FLOAT",
        "mev",
        "m^1.5",
    ],
)
def test_what_is_no_unit_has_no_value(unit: str) -> None:
    assert to_si(1, unit) is None


@given(st.floats(), st.text(alphabet="mskegVA^*/()-0123456789. °%µ", max_size=70))
def test_any_text_gives_a_finite_value_or_nothing(value: float, unit: str) -> None:
    found = to_si(value, unit)
    assert found is None or math.isfinite(found.value)


@given(st.floats(-1e30, 1e30), st.floats(-1e30, 1e30))
def test_order_is_kept(one: float, other: float) -> None:
    first, second = to_si(one, "keV"), to_si(other, "keV")
    assert first is not None
    assert second is not None
    assert (one <= other) <= (first.value <= second.value)


def test_the_key_tells_ampere_from_angstrom() -> None:
    assert to_si(1, "A") == SiValue(1, "A")
    assert to_si(1, "A", key="beam.incident_wavelength") == SiValue(1e-10, "m")
    assert to_si(20, "C", key="sample.temperature") == SiValue(293.15, "K")
    assert to_si(20, "C", key="charge") == SiValue(20, "s A")


def test_a_photon_has_one_wavelength() -> None:
    energy = to_si(16.9, "keV")
    assert energy is not None
    wavelength = same_photon(energy)
    assert wavelength is not None
    assert wavelength.dimension == "m"
    assert wavelength.value == pytest.approx(0.73363e-10, rel=1e-5)
    assert same_photon(SiValue(0, "m")) is None
    assert same_photon(SiValue(1, "K")) is None


def test_a_number_with_its_unit_is_a_quantity_and_nothing_else_is() -> None:
    assert quantity_of({"value": 12, "unit": "keV"}) == (12.0, "keV")
    assert quantity_of({"value": 12.5, "unit": "keV", "offset": 1}) == (12.5, "keV")
    others: list[JsonValue] = [
        None,
        12,
        "12 keV",
        [12, "keV"],
        {"value": 12},
        {"value": True, "unit": "keV"},
        {"value": "12", "unit": "keV"},
        {"value": 12, "unit": None},
        {"value": 12, "unit": ""},
        {"value": float("inf"), "unit": "m"},
    ]
    for other in others:
        assert quantity_of(other) is None
