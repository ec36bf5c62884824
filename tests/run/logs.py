"""Writes and reads logs, for the tests of the logger."""

import json
import struct

from tensorboardX.proto.event_pb2 import Event, SessionLog

from dreamer.config import Config
from dreamer.run.logger import Logger

ALL = ("jsonl", "tensorboard")


def make(logdir, outputs=("jsonl",)):
    return Logger(logdir, Config(), outputs)


def rows(path):
    def reject(name):
        raise AssertionError(f"{name} is not JSON")

    lines = path.read_text().splitlines()
    return [json.loads(line, parse_constant=reject) for line in lines]


def checksum(data):
    """CRC-32C, bit by bit, and masked as TensorFlow does it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(logdir):
    """Reads TensorBoard's record files: length, crc, data, crc."""
    found = []
    for path in sorted(logdir.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            length, crc = struct.unpack("<QI", data[:12])
            assert crc == checksum(data[:8])
            event, data = data[12 : 12 + length], data[12 + length :]
            assert data[:4] == struct.pack("<I", checksum(event))
            found.append(Event.FromString(event))
            data = data[4:]
    return found


def scalars(logdir):
    return [
        (event.step, value.tag, value.simple_value)
        for event in events(logdir)
        for value in event.summary.value
    ]


def log(logger, first, last):
    """One row each 4 frames, two of them at frames that 8 divides."""
    for frames in range(first, last, 4):
        if frames % 8 == 0:
            logger.episode(frames, frames / 2, 10)
        logger.scalars(frames, {"train/a": float(frames)})


def shown(logdir):
    """What two readers of TensorBoard's show: each (tag, step, value)."""
    by_session, by_step = [], []
    for event in events(logdir):
        if event.session_log.status == SessionLog.START:
            by_session = [x for x in by_session if x[1] < event.step]
        for value in event.summary.value:
            row = (value.tag, event.step, value.simple_value)
            by_session.append(row)
            by_step = [
                x for x in by_step if x[0] != row[0] or x[1] < event.step
            ]
            by_step.append(row)
    return sorted(by_session), sorted(by_step)


def assert_same(logdir, undisturbed):
    for name in ("metrics.jsonl", "scores.jsonl"):
        expected = (undisturbed / name).read_bytes()
        assert (logdir / name).read_bytes() == expected
    assert scalars(logdir) == scalars(undisturbed)
    assert shown(logdir) == shown(undisturbed)
