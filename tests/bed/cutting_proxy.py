"""A TCP relay that breaks, stalls or slows down connections, as a bad network does.

with CuttingProxy(server.port) as proxy:
    proxy.cut_after(5000)      # bytes, both ways together, of all connections from now on
    connect to 127.0.0.1:proxy.port
"""

import contextlib
import selectors
import socket
import threading
import time

HOST = "127.0.0.1"
PIECE_BYTES = 16384


class CuttingProxy:
    """Relays to `target` on this machine; every change holds for connections that are open, too."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self.num_accepted = 0
        self.num_bytes = 0
        self.cut_at = 0.0
        """When connections were last broken, on the monotonic clock."""
        self._limit: int | None = None
        self._stalled = threading.Event()
        self._refuses = threading.Event()
        self._delay_s = 0.0
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._forgotten: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> "CuttingProxy":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._stalled.clear()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def cut(self) -> None:
        """Break every connection now."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        self.cut_at = time.monotonic()
        for pair in pairs:
            for side in pair:
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)

    def refuse(self, is_refusing: bool = True) -> None:
        """Close every new connection at once: a login node that restarts."""
        (self._refuses.set if is_refusing else self._refuses.clear)()

    def forget(self) -> None:
        """Pass nothing on for those that are open, ever; a new one passes: a router restarted."""
        with self._lock:
            self._forgotten |= {near for near, _ in self._pairs}

    def cut_after(self, num_bytes: int) -> None:
        """Break all when so many more bytes have passed; once."""
        self._limit = self.num_bytes + num_bytes

    def stall(self) -> None:
        """Pass nothing on, and keep all open: a cable pulled, a laptop asleep."""
        self._stalled.set()

    def resume(self) -> None:
        """Pass all on that was held."""
        self._stalled.clear()

    def delay(self, seconds: float) -> None:
        """Let every piece wait."""
        self._delay_s = seconds

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.num_accepted += 1
            if self._refuses.is_set():
                near.close()
                continue
            try:
                far = socket.create_connection((HOST, self.target))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._pairs.append((near, far))
            thread = threading.Thread(target=self._relay, args=(near, far), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _relay(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, selectors.DefaultSelector() as ready:
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            while not self._closed.is_set():
                if self._stalled.is_set():
                    time.sleep(0.02)
                    continue
                if near in self._forgotten:
                    if self._is_cut(near):
                        return
                    time.sleep(0.1)
                    continue
                for key, _ in ready.select(timeout=0.2):
                    assert isinstance(key.fileobj, socket.socket)
                    if not self._pass_on(key.fileobj, key.data):
                        return

    def _is_cut(self, near: socket.socket) -> bool:
        with self._lock:
            return all(near is not one for one, _ in self._pairs)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> bool:
        try:
            piece = source.recv(PIECE_BYTES)
            time.sleep(self._delay_s)
            if self._limit is not None and self.num_bytes + len(piece) >= self._limit:
                # the last piece arrives in part
                sink.sendall(piece[: max(0, self._limit - self.num_bytes)])
                self._limit = None
                self.cut()
                return False
            sink.sendall(piece)
        except OSError:
            return False
        self.num_bytes += len(piece)
        return bool(piece)
