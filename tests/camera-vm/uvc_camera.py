"""A USB camera (UVC 1.0, MJPEG) in a process: the kernel's virtual host controller (vhci-hcd) takes a USB device from a
socket, in the USB/IP protocol (Documentation/usb/usbip_protocol.rst), and its UVC driver then makes a /dev/video of it.

Frames travel in a bulk endpoint, each as one payload with a header of two bytes (USB Video Class 1.0, 2.4.3.2).
"""

import collections
import errno
import pathlib
import socket
import struct
import threading
import time

VHCI = pathlib.Path("/sys/devices/platform/vhci_hcd.0")
HIGH_SPEED = 3
CMD_SUBMIT, CMD_UNLINK, RET_SUBMIT, RET_UNLINK = 1, 2, 3, 4
FRAME_END, FRAME_ERROR, HEADER_END = 0x02, 0x40, 0x80
VIDEO_CONTROL, VIDEO_STREAMING = 0, 1
ENDPOINT = 0x81
MOST_PAYLOAD = 1 << 20
GET_DESCRIPTOR, SET_CONFIGURATION, SET_INTERFACE = 6, 9, 11
SET_CUR, GET_CUR, GET_MIN, GET_MAX, GET_RES, GET_LEN, GET_INFO, GET_DEF = 0x01, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87
# (unit, selector): minimum, maximum, step, default; of the camera terminal (1) and the processing unit (2), two or four bytes.
CONTROLS = {
    (1, 2): (1, 1, 8, 1, 8),  # auto exposure mode: manual (1) or aperture priority (8)
    (1, 4): (4, 1, 5000, 1, 156),  # exposure time, in 0.1 ms
    (2, 2): (2, 0, 255, 1, 128),  # brightness
    (2, 4): (2, 0, 100, 1, 10),  # gain
}


def unit(subtype, data):
    """A class-specific interface descriptor."""
    return bytes([len(data) + 3, 0x24, subtype]) + data


class UvcCamera:
    """Give it JPEGs of one size; then `plug`. The attributes may be changed at any time."""

    def __init__(self, jpegs, width_px, height_px, fps=30, port=0):
        self.jpegs, self.width_px, self.height_px, self.fps, self.port = jpegs, width_px, height_px, fps, port
        # Of how many frames one is spoiled, 0 for none: cut off in the middle, or marked by the camera as faulty.
        self.cut_every = self.faulty_every = 0
        # While true, nothing is sent, as a camera whose firmware hangs.
        self.stalled = False
        self.sent = self.spoiled = 0
        self.values = {key: default for key, (_, _, _, _, default) in CONTROLS.items()}
        self.probe = self._probe()
        self.socket = None

    def plug(self):
        """The kernel enumerates the device; /dev/video appears some time later."""
        ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket, self.waiting, self.lock = ours, collections.OrderedDict(), threading.Lock()
        self.streaming = False
        for work in (self._serve, self._send_frames):
            threading.Thread(target=work, args=(ours,), daemon=True).start()
        (VHCI / "attach").write_text(f"{self.port} {kernels.fileno()} {self.port + 1} {HIGH_SPEED}")
        kernels.close()

    def unplug(self):
        """As a cable that is pulled out."""
        ours, self.socket = self.socket, None
        ours.shutdown(socket.SHUT_RDWR)
        ours.close()

    # What the device says about itself.

    def _probe(self):
        interval = 10_000_000 // self.fps
        return struct.pack("<HBBIHHHHHII", 1, 1, 1, interval, 0, 0, 0, 0, 0, MOST_PAYLOAD, MOST_PAYLOAD)

    def _configuration(self):
        interval = 10_000_000 // self.fps
        bits_per_second = self.width_px * self.height_px * 16 * self.fps
        terminals = (
            unit(0x02, struct.pack("<BHBBHHHB", 1, 0x0201, 0, 0, 0, 0, 0, 3) + bytes([0b1010, 0, 0]))
            + unit(0x05, struct.pack("<BBHB", 2, 1, 0, 2) + struct.pack("<H", 1 << 0 | 1 << 9) + b"\0")
            + unit(0x03, struct.pack("<BHBBB", 3, 0x0101, 0, 2, 0))
        )
        control = unit(0x01, struct.pack("<HHIBB", 0x0100, 13 + len(terminals), 48_000_000, 1, VIDEO_STREAMING)) + terminals
        formats = (
            unit(0x06, bytes([1, 1, 1, 1, 0, 0, 0, 0]))
            + unit(
                0x07,
                struct.pack("<BBHHIIIIB", 1, 0, self.width_px, self.height_px, bits_per_second, bits_per_second, MOST_PAYLOAD, interval, 1)
                + struct.pack("<I", interval),
            )
            + unit(0x0D, bytes([1, 1, 4]))
        )
        streaming = unit(0x01, struct.pack("<BHBBBBBBBB", 1, 14 + len(formats), ENDPOINT, 0, 3, 0, 0, 0, 1, 0)) + formats
        body = (
            bytes([8, 0x0B, 0, 2, 0x0E, 3, 0, 2])
            + bytes([9, 4, VIDEO_CONTROL, 0, 0, 0x0E, 1, 0, 2])
            + control
            + bytes([9, 4, VIDEO_STREAMING, 0, 1, 0x0E, 2, 0, 2])
            + streaming
            + struct.pack("<BBBBHB", 7, 5, ENDPOINT, 2, 512, 0)
        )
        return struct.pack("<BBHBBBBB", 9, 2, 9 + len(body), 2, 1, 0, 0x80, 50) + body

    def _descriptor(self, kind, index):
        if kind == 1:
            return struct.pack("<BBHBBBBHHHBBBB", 18, 1, 0x0200, 0xEF, 2, 1, 64, 0x1209, 0x0001, 0x0100, 1, 2, 3, 1)
        if kind == 2:
            return self._configuration()
        if kind == 3 and index == 0:
            return bytes([4, 3, 0x09, 0x04])
        if kind == 3 and index <= 3:
            text = ["Tests", "Test camera", f"{self.port:04}"][index - 1].encode("utf-16-le")
            return bytes([len(text) + 2, 3]) + text
        return None

    # Requests on endpoint 0: what is returned is sent; None is a stall.

    def _control(self, setup, sent):
        kind, request, value, index, length = struct.unpack("<BBHHH", setup)
        if kind & 0x60 == 0x20 and kind & 0x1F == 1:
            answer = self._video(request, value >> 8, index & 0xFF, index >> 8, sent)
        elif request == GET_DESCRIPTOR:
            answer = self._descriptor(value >> 8, value & 0xFF)
        elif kind & 0x80:
            answer = bytes(length)
        else:
            # Ends a bulk stream: the host clears the endpoint.
            if request == 1 and index == ENDPOINT:
                self.streaming = False
            answer = b""
        return answer if answer is None else answer[:length]

    def _video(self, request, selector, interface, entity, sent):
        if interface == VIDEO_STREAMING and selector in (1, 2):
            if request == SET_CUR:
                self.streaming = selector == 2
                return b""
            fixed = {GET_LEN: struct.pack("<H", len(self.probe)), GET_INFO: b"\x03"}
            return fixed.get(request, self.probe)
        control = CONTROLS.get((entity, selector))
        if interface != VIDEO_CONTROL or control is None:
            return None
        size, least, most, step, default = control
        if request == SET_CUR:
            self.values[entity, selector] = int.from_bytes(sent[:size], "little")
            return b""
        numbers = {
            GET_CUR: self.values[entity, selector],
            GET_MIN: least,
            GET_MAX: most,
            # Of modes it is the set that can be chosen.
            GET_RES: 1 | 8 if (entity, selector) == (1, 2) else step,
            GET_DEF: default,
        }
        if request == GET_INFO:
            return b"\x03"
        if request == GET_LEN:
            return struct.pack("<H", size)
        return numbers[request].to_bytes(size, "little") if request in numbers else None

    # USB/IP.

    def _serve(self, ours):
        try:
            while True:
                header = receive(ours, 48)
                command, number, _, direction, endpoint = struct.unpack(">IIIII", header[:20])
                if command == CMD_UNLINK:
                    victim = struct.unpack(">I", header[20:24])[0]
                    with self.lock:
                        status = -errno.ECONNRESET if self.waiting.pop(victim, None) is not None else 0
                        ours.sendall(struct.pack(">IIIIIi24x", RET_UNLINK, number, 0, 0, 0, status))
                    continue
                length = struct.unpack(">I", header[24:28])[0]
                sent = receive(ours, length) if direction == 0 else b""
                if endpoint == 0:
                    self._answer(ours, number, self._control(header[40:48], sent), None if direction else len(sent))
                else:
                    with self.lock:
                        self.waiting[number] = length
        except OSError:
            pass

    def _answer(self, ours, number, data, taken):
        """To a request that sent us `taken` bytes, or (None) asked for some."""
        status = -errno.EPIPE if data is None else 0
        data = b"" if data is None or taken is not None else data
        length = len(data) if taken is None else taken
        with self.lock:
            ours.sendall(struct.pack(">IIIIIiIIIi8x", RET_SUBMIT, number, 0, 0, 0, status, length, 0, 0, 0) + data)

    def _send_frames(self, ours):
        """At every period one JPEG, if the host is ready for one."""
        due, toggle = time.monotonic(), 0
        try:
            while self.socket is ours:
                due = max(due + 1 / self.fps, time.monotonic() - 1)
                time.sleep(max(due - time.monotonic(), 0))
                if self.streaming and not self.stalled:
                    toggle ^= 1
                    self._send_payload(ours, self._payload(toggle))
        except OSError:
            pass

    def _payload(self, toggle):
        jpeg, flags = self.jpegs[self.sent % len(self.jpegs)], toggle | FRAME_END | HEADER_END
        self.sent += 1
        if self.cut_every and self.sent % self.cut_every == 0:
            jpeg, self.spoiled = jpeg[: len(jpeg) // 2], self.spoiled + 1
        if self.faulty_every and self.sent % self.faulty_every == 0:
            flags, self.spoiled = flags | FRAME_ERROR, self.spoiled + 1
        return bytes([2, flags]) + jpeg

    def _send_payload(self, ours, payload):
        """In as many transfers as it takes; a shorter one than asked for (empty, if need be) ends it."""
        ended = False
        while not ended and self.socket is ours and self.streaming:
            with self.lock:
                if self.waiting:
                    number, length = self.waiting.popitem(last=False)
                    part, payload = payload[:length], payload[length:]
                    ended = len(part) < length
                    reply = struct.pack(">IIIIIiIIIi8x", RET_SUBMIT, number, 0, 0, 0, 0, len(part), 0, 0, 0)
                    ours.sendall(reply + part)
                    continue
            time.sleep(0.001)


def receive(stream, length):
    """Exactly so many bytes."""
    data = b""
    while len(data) < length:
        part = stream.recv(length - len(data))
        if not part:
            raise OSError("closed")
        data += part
    return data


def split_jpegs(stream):
    """The JPEGs of an MJPEG file."""
    starts = [0]
    while (start := stream.find(b"\xff\xd8\xff", starts[-1] + 2)) > 0:
        starts.append(start)
    return [stream[start:end] for start, end in zip(starts, starts[1:] + [len(stream)])]
