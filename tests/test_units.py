"""Numbers in words: powers of two for memory, of ten for disks, and no figure that says more than is known."""

import math

import pytest

from workbench import units


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (units.size_in("GB", 3.64e9), "3.6 GB"),
        (units.size_in("MB", 1234e6, 0), "1,234 MB"),
        (units.part_of("GiB", 31.2 * 2**30, 40 * 2**30), "31.2 of 40.0 GiB"),
        (units.gib(2.412 * 2**30), "2.41 GiB"),
        (units.gib(53 * 2**20), "53 MiB"),
        (units.gib(5.25 * 2**20), "5.2 MiB"),
        (units.gib(139 * 2**30), "139 GiB"),
        (units.gib(139 * 2**30, 2), "139.00 GiB"),
        (units.gib_number(24 * 2**30), "24.0"),
        (units.file_size(19.64e6), "19.6 MB"),
        (units.file_size(1.236e9), "1.2 GB"),
        (units.file_size(1.236e9, 2), "1.24 GB"),
        (units.file_size(270e6, 2), "270.0 MB"),
        (units.file_size(512), "512 B"),
        (units.rounded_file_size(270e6), "270 MB"),
        (units.rounded_file_size(2.8e9), "2.8 GB"),
        (units.rounded_file_size(999.9e6), "1 GB"),
        (units.rounded_file_size(12_345e9), "12,345 GB"),
        (units.rounded_file_size(17), "17 B"),
        (units.short(134_515_008), "135M"),
        (units.short(6.74e9), "6.74B"),
        (units.short(999_600), "1M"),
        (units.parameters(1.1e9), "1.10 B"),
        (units.parameters(134.5e6), "134 M"),
        (units.clock(252), "04:12"),
        (units.clock(3723), "1:02:03"),
        (units.clock(51 * 3600), "2 d 03 h"),
        (units.clock(None), "–"),
        (units.clock(math.inf), "–"),
        (units.clock(252.34, tenths=True), "04:12.3"),
        (units.clock(59.97, tenths=True), "01:00.0"),
        (units.clock(3723.4, tenths=True), "1:02:03"),
        (units.clock(3599.98, tenths=True), "1:00:00"),
        (units.step_time(0.043), "43 ms"),
        (units.step_time(2.314), "2.31 s"),
        (units.duration(43.21), "43.2 s"),
        (units.duration(252), "4 min 12 s"),
        (units.duration(3723), "1 h 02 min"),
        (units.rough_time(28.4), "28 s"),
        (units.rough_time(720), "12 min"),
    ],
)
def test_numbers_in_words(words: str, expected: str) -> None:
    assert words == expected
