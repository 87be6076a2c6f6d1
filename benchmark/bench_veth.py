"""The highest rate of reports on a veth pair, over a program that only drops, in the same run.

    .venv/bin/python benchmark/bench_veth.py [--json] [--rounds N] [--reports N]

Needs root. Live frames are made and received on one core: a batch of 64 is redirected, the peer takes it in at once,
then the next is made. So "as fast as it goes" is the highest rate without loss; that nothing was lost is checked by
the program's own counters and the reports' sequence numbers. Rounds are short and many, both programs take turns, and
the highest rate of each is compared with the other's; the median of the rounds' own ratios stands beside it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys

from common import drop_program, emit, network, parser, pinned, ratios, required, seconds, turns

from intcollector import kernel
from intcollector.config import Config
from intcollector.datapath import Datapath
from intcollector.sending import LiveSender
from intcollector.traffic import Traffic

TRAFFIC = Traffic(flows=1000, hops=3, instructions=0xFF00, event_rate=0)
CONFIG = Config(int_dscp=(23, 63))


def main() -> int:
    options = parser(__doc__, rounds=800)
    options.add_argument("--reports", type=int, default=20_000, help="reports a round (default: 20000)")
    arguments = options.parse_args()
    floor = drop_program()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, floor)
        net = stack.enter_context(network())
        stack.enter_context(pinned(0))
        datapath = Datapath(CONFIG)
        stack.callback(datapath.close)
        # One each, so that the reports the collector sees follow one another.
        far = stack.enter_context(net.inside(0))
        senders = {name: LiveSender(TRAFFIC, far) for name in ("drop", "collector")}
        for sender in senders.values():
            stack.callback(sender.close)

        def reports_a_second(program: int, sender: LiveSender) -> float:
            with net.inside(1) as near:
                link = kernel.link_create(program, socket.if_nametoindex(near), kernel.XDP_FLAGS_DRV_MODE)
            try:
                rate = arguments.reports / seconds(lambda: sender.run(arguments.reports))
            finally:
                os.close(link)
            datapath.drain()
            return rate

        # the first round learns the flows
        reports_a_second(datapath.fd, senders["collector"])
        rates = turns(
            arguments.rounds,
            {
                "drop": lambda: reports_a_second(floor, senders["drop"]),
                "collector": lambda: reports_a_second(datapath.fd, senders["collector"]),
            },
        )
        state = datapath.state()
        sent = {name: int(sender.state()["sent"]) for name, sender in senders.items()}
    seen, lost = int(state.counters["outcomes"][0]), int(state.sources["lost"].sum())
    assert sent == {"drop": arguments.rounds * arguments.reports, "collector": seen}, f"sent {sent}, seen {seen}"
    assert seen == (arguments.rounds + 1) * arguments.reports and not lost and not state.counters["events_lost"]
    of_floor = ratios(rates["collector"], rates["drop"])
    rows = [
        required(
            "rate without loss on a veth pair, over a program that only drops",
            100 * rates["collector"].high / rates["drop"].high, "%", must=60, hope=75, better="more",
            ratio_median=100 * of_floor.median, ratio_low=100 * of_floor.low, ratio_high=100 * of_floor.high,
        ),
        *({"program": name, "reports_a_second": rate.median, "low": rate.low, "high": rate.high,
           "ns_a_report": 1e9 / rate.median, "sent": sent[name]} for name, rate in rates.items()),
    ]  # fmt: skip
    emit("veth", rows, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
