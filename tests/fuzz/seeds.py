#!/usr/bin/env python3
"""Where fuzzing begins: whole messages and whole frames, written into corpus/, one a file. See README.md."""

import struct
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def number(kind, value):
    return attribute(kind, struct.pack("=I", value))


def message(family, flags, command, body=b""):
    return struct.pack("=IHHIIBBH", 20 + len(body), family, 1 | flags, 7, 9, command, 1, 0) + body


def service(port, scheduler=b"wrr\0", flags=0):
    """As ipvsadm describes one: Linux include/uapi/linux/ip_vs.h, IPVS_SVC_ATTR_*."""
    return attribute(1, b"".join([
        attribute(1, struct.pack("=H", 2)), attribute(2, struct.pack("=H", 6)), attribute(3, bytes([10, 0, 0, 100]) + bytes(12)),
        attribute(4, struct.pack(">H", port)), attribute(6, scheduler), attribute(7, struct.pack("=II", flags, 0xFFFFFFFF)),
        number(8, 300), attribute(9, b"\xff" * 4),
    ]))


def destination(host, weight):
    """IPVS_DEST_ATTR_*."""
    return attribute(2, b"".join([
        attribute(1, bytes([10, 0, 0, host]) + bytes(12)), attribute(2, struct.pack(">H", 8080)), number(3, 0), number(4, weight),
        number(5, 9), number(6, 3), attribute(11, struct.pack("=H", 2)),
    ]))


def netlink():
    ipvs, ack, dump = 33, 4, 0x300
    yield message(16, ack, 3, attribute(2, b"IPVS\0"))
    for command, body in [(1, service(81)), (2, service(80, b"sh\0", 1)), (3, service(80)), (16, b""), (17, b"")]:
        yield message(ipvs, ack, command, body)
    for command, host in [(5, 12), (6, 11), (7, 11)]:
        yield message(ipvs, ack, command, service(80) + destination(host, 3))
    for command, body in [(4, b""), (8, service(80)), (11, b"")]:
        yield message(ipvs, dump, command, body)
    daemon = attribute(1, struct.pack("=I", 1)) + attribute(2, b"lo\0") + number(3, 5)
    yield message(ipvs, ack, 9, attribute(3, daemon))
    yield message(ipvs, ack, 12, number(4, 900) + number(5, 120) + number(6, 300))
    yield message(ipvs, 0, 13) + message(ipvs, 0, 15)
    yield message(0x5F01, 0, 1, attribute(1, b"ip_vs_conn\0"))


def summed(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(protocol, payload, fragment=0):
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 7, fragment, 64, protocol, 0) + bytes([10, 1, 0, 2, 10, 0, 0, 100])
    return head[:10] + struct.pack(">H", summed(head)) + head[12:] + payload


def ipv6(next_header, payload):
    address = bytes.fromhex("fd000000000000000000000000000002")
    return struct.pack(">IHBB", 6 << 28, len(payload), next_header, 64) + address + address[:-1] + b"\x64" + payload


def frames():
    macs = bytes([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2])
    tcp = struct.pack(">HHIIBBHHH", 40000, 80, 1, 0, 0x60, 2, 65535, 0, 0) + bytes([2, 4, 5, 180])
    udp = struct.pack(">HHHH", 40000, 53, 12, 0) + b"what"
    sctp = struct.pack(">HHII", 40000, 80, 0, 0) + struct.pack(">BBHIIHHI", 1, 0, 20, 1, 65535, 1, 1, 1)
    for protocol, payload in [(6, tcp), (17, udp), (132, sctp), (1, bytes([8, 0, 247, 255, 0, 0, 0, 0]))]:
        yield macs + b"\x08\0" + ipv4(protocol, payload)
        yield macs + b"\x86\xdd" + ipv6(58 if protocol == 1 else protocol, payload)
    yield macs + b"\x08\0" + ipv4(17, udp, 0x2000)
    yield macs + b"\x08\0" + ipv4(17, udp, 0x0003)
    yield macs + b"\x08\0" + ipv4(1, bytes([3, 4, 0, 0, 0, 0, 5, 120]) + ipv4(6, tcp))
    yield macs + b"\x86\xdd" + ipv6(44, bytes([17, 0, 0, 1, 0, 0, 0, 9]) + udp)
    yield macs + b"\x86\xdd" + ipv6(0, bytes([6, 0, 1, 4, 0, 0, 0, 0]) + tcp)
    yield macs + b"\x86\xdd" + ipv6(58, bytes([2, 0, 0, 0, 0, 0, 5, 120]) + ipv6(6, tcp))
    yield macs + b"\x08\x06" + bytes([0, 1, 8, 0, 6, 4, 0, 1]) + macs[6:] + bytes([10, 1, 0, 2]) + bytes(6) + bytes([10, 0, 0, 100])
    yield macs + b"\x81\0\0\x07\x08\0" + ipv4(17, udp)


def conversations():
    """Frames as fuzz_targets/worker.rs takes them: ticks, length, bytes."""
    def pack(wait, frame):
        return struct.pack("<BH", wait, len(frame)) + frame

    all_frames = list(frames())
    yield b"".join(pack(1, frame) for frame in all_frames)
    for frame in all_frames:
        yield pack(1, frame) + pack(200, frame)
    macs = all_frames[0][:14]

    def tcp(client_port, port, flags, payload=b""):
        return macs + ipv4(6, struct.pack(">HHIIBBHHH", client_port, port, 1, 1, 0x50, flags, 65535, 0, 0) + payload)

    def udp(port, payload):
        return macs + ipv4(17, struct.pack(">HHHH", 40000, port, 8 + len(payload), 0) + payload)

    yield b"".join(pack(1, tcp(40000, 80, flags)) for flags in (2, 16, 24, 17, 4))
    yield b"".join(pack(1, tcp(40000, 21, flags, text)) for flags, text in [(2, b""), (16, b""), (24, b"PORT 10,1,0,2,7,8\r\n")])
    yield pack(1, udp(5060, b"INVITE sip:a@b SIP/2.0\r\nCall-ID: 1@c\r\n\r\n")) + pack(9, udp(7000, b"what")) + pack(9, tcp(1, 7001, 2))


for name, seeds in [("netlink", netlink()), ("frame", frames()), ("worker", conversations())]:
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    for place, seed in enumerate(seeds):
        (folder / f"seed-{place:02}").write_bytes(seed)
