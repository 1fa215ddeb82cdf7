"""Numbers with units: what is one, and its value in SI units, by which 12.4 keV is found as 12400 eV too."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from pydantic import JsonValue

if TYPE_CHECKING:
    from pint import UnitRegistry
    from pint.facets.plain import PlainUnit

MAX_UNIT = 64
MAX_EXPONENT = 12
DIGITS = 12
"""So many digits of a value in SI are kept, so that 12.4 keV and 12400 eV come to the same number."""

ENERGY = "kg m2 s-2"
LENGTH = "m"
PLANCK_TIMES_LIGHT = 6.62607015e-34 * 299792458


class SiValue(NamedTuple):
    """A number in SI base units; only values of one dimension can be compared."""

    value: float
    dimension: str


class _Linear(NamedTuple):
    factor: float
    offset: float
    dimension: str


_LOCK = Lock()
"""A registry of pint is not made for several threads at once."""

_SYMBOLS = {
    "kilogram": "kg",
    "meter": "m",
    "second": "s",
    "ampere": "A",
    "kelvin": "K",
    "mole": "mol",
    "candela": "cd",
    "radian": "rad",
    "bit": "bit",
}
_ORDER = {name: place for place, name in enumerate(_SYMBOLS)}

_SPELLINGS = {
    "°": "degree",
    "deg": "degree",
    "degs": "degree",
    "degree": "degree",
    "degrees": "degree",
    "mdegs": "millidegree",
    "mdegree": "millidegree",
    "mdegrees": "millidegree",
    "°c": "degC",
    "degc": "degC",
    "celsius": "degC",
    "degreescelsius": "degC",
    "°f": "degF",
    "å": "angstrom",
    "ang": "angstrom",
    "angs": "angstrom",
    "angstrom": "angstrom",
    "angstroms": "angstrom",
    "ångström": "angstrom",
    "micron": "micrometer",
    "microns": "micrometer",
    "sec": "second",
    "secs": "second",
    "amp": "ampere",
    "amps": "ampere",
    "ev": "electron_volt",
    "kev": "kiloelectron_volt",
    "torr": "torr",
    "hz": "hertz",
    "khz": "kilohertz",
    "kb": "kilobyte",
    "cps": "count/second",
    "%": "percent",
    "px": "pixel",
    **dict.fromkeys(
        ["count", "counts", "ct", "cts", "photon", "photons", "ph", "phs", "frame", "frames", "pulse", "pulses"],
        "count",
    ),
}
"""How files write units, without regard to case, where pint knows another word or means another thing by it."""

_PER_ANGSTROM = {"1/A", "A^-1", "A-1", "A**-1"}
"""Nobody measures per ampere."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][+-]?\d{1,2})?(?![A-Za-z]))|(?P<name>[^\W\d]+|°[CFcf]?|%)"
    r"(?:\s*(?:\^|\*\*)\s*\(?(?P<power>[+-]?\d{1,2})\)?|(?P<plain>[+-]?\d{1,2}))?|(?P<mark>[*/()·]|\.(?=[^\W\d])))"
)


def quantity_of(value: JsonValue) -> tuple[float, str] | None:
    """Return the number and unit that a value of metadata is, such as `{"value": 12.4, "unit": "keV"}`."""
    if not isinstance(value, dict):
        return None
    number, unit = value.get("value"), value.get("unit")
    if isinstance(number, bool) or not isinstance(number, int | float) or not isinstance(unit, str) or not unit:
        return None
    return (float(number), unit) if math.isfinite(number) else None


def to_si(value: float, unit: str, *, key: str = "") -> SiValue | None:
    """Return a number in SI base units; None where the unit is not known, or the result is no finite number.

    The key under which it stands tells what `A` and `C` are: of a wavelength it is angstrom, of a temperature
    degree Celsius; else ampere and coulomb.
    """
    linear = _linear(_in_context(unit, key)) if len(unit) <= MAX_UNIT else None
    if linear is None:
        return None
    try:
        si = float(f"{value * linear.factor + linear.offset:.{DIGITS}g}")
    except OverflowError:
        return None
    return SiValue(value=si, dimension=linear.dimension) if math.isfinite(si) else None


def same_photon(si: SiValue) -> SiValue | None:
    """Return the energy of a photon of a wavelength, or the wavelength of one of an energy; None of anything else."""
    if si.value <= 0 or si.dimension not in (ENERGY, LENGTH):
        return None
    other = float(f"{PLANCK_TIMES_LIGHT / si.value:.{DIGITS}g}")
    return (
        SiValue(value=other, dimension=LENGTH if si.dimension == ENERGY else ENERGY) if math.isfinite(other) else None
    )


def _in_context(unit: str, key: str) -> str:
    name = key.rpartition(".")[2].lower()
    if unit in _PER_ANGSTROM:
        return "1/angstrom"
    if unit == "A" and any(word in name for word in ("wavelength", "spacing", "lattice", "unit_cell")):
        return "angstrom"
    if unit in ("C", "F") and ("temperature" in name or name == "temp"):
        return f"deg{unit}"
    return unit


@lru_cache(maxsize=4096)
def _linear(unit: str) -> _Linear | None:
    """Return how a unit comes to SI base units; None where it is not known or not proportional (dB, pH)."""
    from pint.errors import PintError

    with _LOCK:
        try:
            number, parsed = _Parser(unit).read()
            at = [_registry().Quantity(x, parsed).to_base_units() for x in (0.0, 1.0, 2.0)]
            dimension = _dimension(at[0].units)
            zero, one, two = (number_of.magnitude for number_of in at)
        except (PintError, ValueError, ArithmeticError, AttributeError, TypeError):
            return None
    factor = (one - zero) * number
    is_linear = math.isclose(two - one, one - zero, rel_tol=1e-9)
    is_usable = is_linear and math.isfinite(factor) and factor != 0 and (zero == 0 or number == 1)
    return _Linear(factor, zero, dimension) if is_usable else None


def read_definitions() -> None:
    """Read what units there are, which takes most of a second and is else done when the first one is met."""
    with _LOCK:
        _registry()


@cache
def _registry() -> UnitRegistry[float]:
    from pint import UnitRegistry

    return UnitRegistry(cache_folder=None)


def _dimension(unit: PlainUnit) -> str:
    """Return the base units of a unit as text, one text for each dimension; what is counted has none."""
    parts = []
    units = unit._units  # noqa: SLF001 - pint has no public way to its parts
    powers = {name: float(str(power)) for name, power in units.items() if name != "count"}
    for name in sorted(powers, key=lambda name: (_ORDER.get(name, len(_ORDER)), name)):
        if powers[name] != int(powers[name]):
            raise ValueError("a dimension with a root")
        power = int(powers[name])
        parts.append(_SYMBOLS.get(name, name) + (str(power) if power != 1 else ""))
    return " ".join(parts) or "1"


class _Parser:
    """Reads `counts/(s*mA)`, `kg m-3` or `1/angstrom`: names, powers, products and quotients, and nothing else.

    pint would take the text as an expression and work it out, `9**9**9` as well.
    """

    def __init__(self, text: str) -> None:
        self._tokens = self._split(unicodedata.normalize("NFKC", text).strip())
        self._next = next(self._tokens, None)
        self._depth = 0

    def read(self) -> tuple[float, PlainUnit]:
        """Return the number that stands in the unit (most often 1) and the unit."""
        if self._next is None:
            raise ValueError("no unit")
        found = self._product()
        if self._next is not None:
            raise ValueError("something is left")
        return found

    @staticmethod
    def _split(text: str) -> Iterator[re.Match[str]]:
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise ValueError("not a unit")
            yield match
            at = match.end()

    def _take(self) -> re.Match[str]:
        if self._next is None:
            raise ValueError("it ends too early")
        taken, self._next = self._next, next(self._tokens, None)
        return taken

    def _product(self) -> tuple[float, PlainUnit]:
        number, unit = self._factor()
        while self._next is not None and self._next["mark"] != ")":
            mark = self._take()["mark"] if self._next["mark"] in ("*", "/", "·", ".") else "*"
            more_number, more_unit = self._factor()
            if mark == "/":
                number, unit = number / more_number, unit / more_unit
            else:
                number, unit = number * more_number, unit * more_unit
        return number, unit

    def _factor(self) -> tuple[float, PlainUnit]:
        token = self._take()
        if token["number"]:
            return float(token["number"]), _registry().Unit("")
        if token["name"]:
            power = int(token["power"] or token["plain"] or 1)
            if abs(power) > MAX_EXPONENT:
                raise ValueError("too high a power")
            return 1.0, _named(token["name"]) ** power if power != 1 else _named(token["name"])
        if token["mark"] != "(" or self._depth:
            raise ValueError("not a unit")
        self._depth = 1
        inside = self._product()
        if self._take()["mark"] != ")":
            raise ValueError("not closed")
        self._depth = 0
        return inside


def _named(name: str) -> PlainUnit:
    from pint.errors import UndefinedUnitError

    try:
        return _registry().Unit(_SPELLINGS.get(name.lower(), name))
    except UndefinedUnitError:
        if len(name) < 4:  # in a symbol the case tells milli from mega; in a word such as `Volts` it says nothing
            raise
        return _registry().Unit(name.lower())
