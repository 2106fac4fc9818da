"""A process that plays takes, one after another, for as long as its parent lives.

Started by :mod:`simulations.runs.workers` only: takes come on standard input, what became
of them goes to standard output, in MessagePack.  A thread waits for the takes, so that the
end of the parent is noticed in the middle of one, too; it does nothing else, and so changes
nothing of what is played.
"""

import os
import signal
import sys
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread

import msgspec

from simulations.runs.messages import ENCODER, Ended, Progressed
from simulations.runs.takes import Take, play_take


def main() -> None:
    """Play what comes."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the parent's, while it started this
    pipe = Connection(os.dup(0), writable=False)
    told = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # what anybody prints must not get between the messages
    sys.stdin.close()
    takes: SimpleQueue[Take] = SimpleQueue()
    Thread(target=_read, args=(pipe, takes), daemon=True).start()

    def progress(done_s: float, all_s: float) -> None:
        told.send_bytes(ENCODER.encode(Progressed(done_s, all_s)))

    while True:
        outcome = play_take(takes.get(), progress)
        told.send_bytes(ENCODER.encode(Ended(outcome)))


def _read(pipe: Connection, takes: SimpleQueue[Take]) -> None:
    """Take in what comes; end this process when nothing more can come."""
    while True:
        try:
            frame = pipe.recv_bytes()
        except (EOFError, OSError):
            os._exit(0)
        takes.put(msgspec.msgpack.decode(frame, type=Take))


if __name__ == "__main__":
    main()
