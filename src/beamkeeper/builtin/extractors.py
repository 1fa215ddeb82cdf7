"""The extractors that are shipped: which formats they read; the reading itself is imported in the worker only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from beamkeeper.plugins.extractors import Format

_IMAGES = "beamkeeper[formats]"
_HDF5_SUFFIXES = (".h5", ".hdf5", ".nxs", ".nx5", ".nexus", ".he5", ".cxi")
_TIFF_SUFFIXES = (".tif", ".tiff", ".btf")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_EDF_MAGIC = (b"{\nEDF_", b"{\r\nEDF_", b"{\nHeaderID", b"{\r\nHeaderID", b"\n{\r\nEDF", b"\r\n{\r\nEDF")


class HDF5Extractor:
    """HDF5 and NeXus."""

    formats: ClassVar[tuple[Format, ...]] = (
        Format("HDF5", ((0, b"\x89HDF\r\n\x1a\n"),), _HDF5_SUFFIXES),
        # A user block may come before the signature, of 512 bytes or a power of two more.
        Format("HDF5", ((512, b"\x89HDF\r\n\x1a\n"),), _HDF5_SUFFIXES),
    )
    summary: ClassVar[str] = "Reads HDF5 and NeXus files."
    requires: ClassVar[Mapping[str, str]] = {"h5py": "beamkeeper[server]"}

    def extract(self, path: str) -> Mapping[str, object]:
        """Return what a file says."""
        from beamkeeper.builtin.extract_hdf5 import read_hdf5

        return read_hdf5(path)


class TIFFExtractor:
    """TIFF, with what areaDetector and Pilatus write into it."""

    formats: ClassVar[tuple[Format, ...]] = tuple(
        Format("TIFF", ((0, magic),), _TIFF_SUFFIXES) for magic in _TIFF_MAGIC
    )
    summary: ClassVar[str] = "Reads TIFF images, and the attributes of areaDetector and Pilatus in them."
    requires: ClassVar[Mapping[str, str]] = {"tifffile": "beamkeeper[server]"}

    def extract(self, path: str) -> Mapping[str, object]:
        """Return what a file says."""
        from beamkeeper.builtin.extract_tiff import read_tiff

        return read_tiff(path)


class ImageExtractor:
    """The images of detectors that fabio reads."""

    formats: ClassVar[tuple[Format, ...]] = (
        *(Format("EDF", ((0, magic),), (".edf", ".edf.gz", ".cor", ".ehf")) for magic in _EDF_MAGIC),
        Format("MarCCD", ((0, b"II*\0"), (1028, b"MMX")), (".mccd", ".marccd")),
        Format("MarCCD", ((0, b"II*\0"),), (".mccd", ".marccd"), needs_both=True),
        Format("mar345", ((0, b"\xd2\x04\0\0"),), (".mar345", ".mar3450", ".mar2300", ".mar1800", ".mar1200")),
        Format("ADSC", ((0, b"{\nHEADER_BYTES="),), (".img", ".sub"), needs_both=True),
        Format("Bruker", ((0, b"FORMAT :"),), (".sfrm", ".gfrm")),
        Format("Oxford", ((0, b"OD SAPPHIRE"),), ()),
        Format("Esperanto", ((0, b"ESPERANTO FORMAT"),), (".esperanto", ".esper")),
        Format("R-AXIS", ((0, b"RAXIS"),), (".osc",)),
        Format("GE", ((0, b"ADEPT"),), (".ge", ".ge1", ".ge2", ".ge3", ".ge4", ".ge5")),
        Format("HiPiC", ((0, b"IM"),), (".img",), needs_both=True),
        Format("SPE", (), (".spe",)),
    )
    summary: ClassVar[str] = "Reads EDF, MarCCD and other images of detectors, through fabio."
    requires: ClassVar[Mapping[str, str]] = {"fabio": _IMAGES}

    def extract(self, path: str) -> Mapping[str, object]:
        """Return what a file says."""
        from beamkeeper.builtin.extract_images import read_image

        return read_image(path)


class CBFExtractor:
    """The images of Pilatus and Eiger detectors."""

    formats: ClassVar[tuple[Format, ...]] = (Format("CBF", ((0, b"###CBF"),), (".cbf",)),)
    summary: ClassVar[str] = "Reads the headers of CBF images, as Pilatus and Eiger write them."
    requires: ClassVar[Mapping[str, str]] = {}

    def extract(self, path: str) -> Mapping[str, object]:
        """Return what a file says."""
        from beamkeeper.builtin.extract_cbf import read_cbf

        return read_cbf(path)


class SpecExtractor:
    """The data files of SPEC."""

    formats: ClassVar[tuple[Format, ...]] = (Format("SPEC", ((0, b"#F "),), (".spec",)),)
    summary: ClassVar[str] = "Reads the headers of SPEC data files: scans, commands, motors."
    requires: ClassVar[Mapping[str, str]] = {}

    def extract(self, path: str) -> Mapping[str, object]:
        """Return what a file says."""
        from beamkeeper.builtin.extract_spec import read_spec

        return read_spec(path)


class MDAExtractor:
    """The files of the EPICS sscan record."""

    formats: ClassVar[tuple[Format, ...]] = (
        Format("MDA", ((0, b"\x3f\xa6\x66\x66"),), (".mda",)),
        Format("MDA", ((0, b"\x3f\xb3\x33\x33"),), (".mda",)),
    )
    summary: ClassVar[str] = "Reads the headers of MDA files, as the EPICS sscan record saves them."
    requires: ClassVar[Mapping[str, str]] = {}

    def extract(self, path: str) -> Mapping[str, object]:
        """Return what a file says."""
        from beamkeeper.builtin.extract_mda import read_mda

        return read_mda(path)


class TextExtractor:
    """Plain text with `key: value` lines before its columns."""

    formats: ClassVar[tuple[Format, ...]] = (
        Format("text", (), (".txt", ".dat", ".asc", ".csv", ".xdi", ".hdr"), is_text=True),
    )
    summary: ClassVar[str] = "Reads `key: value` and `key = value` lines at the beginning of text files."
    requires: ClassVar[Mapping[str, str]] = {}

    def extract(self, path: str) -> Mapping[str, object]:
        """Return what a file says."""
        from beamkeeper.builtin.extract_text import read_text

        return read_text(path)


class HDF4Extractor:
    """HDF4 and the NeXus files of before 2005."""

    formats: ClassVar[tuple[Format, ...]] = (Format("HDF4", ((0, b"\x0e\x03\x13\x01"),), (".hdf4", ".h4")),)
    summary: ClassVar[str] = "Reads HDF4 files, as NeXus wrote them once, through pyhdf."
    requires: ClassVar[Mapping[str, str]] = {"pyhdf": _IMAGES}

    def extract(self, path: str) -> Mapping[str, object]:
        """Return what a file says."""
        from beamkeeper.builtin.extract_hdf4 import read_hdf4

        return read_hdf4(path)
