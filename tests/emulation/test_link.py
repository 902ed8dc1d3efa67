"""The emulated link: its text form and the air time on its medium, without a clock."""

import math
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import prism
from prism.emulation.link import LinkShape
from prism.emulation.medium import Medium
from prism.errors import ConfigError

rates = st.floats(1e3, 1e12)
times = st.floats(0.0, 1e3)
counts = st.none() | st.integers(0, 10**9)


@st.composite
def shapes(draw):
    stall_after = draw(counts)
    return LinkShape(
        bandwidth_bps=draw(st.none() | rates),
        latency_s=draw(times),
        jitter_s=draw(times),
        shared=draw(st.booleans()),
        drop_after=draw(counts),
        stall_after=stall_after,
        stall_s=0.0 if stall_after is None else draw(st.floats(1e-9, 1e3)),
    )


class TestLinkShape:
    @given(shapes())
    def test_text_reads_back(self, shape):
        assert LinkShape.parse(str(shape)) == shape

    @pytest.mark.parametrize(
        ("text", "shape"),
        [
            ("", LinkShape()),
            (" none ", LinkShape()),
            ("100mbit,3ms", LinkShape(100e6, 0.003)),
            ("3ms, 1.5Gbit", LinkShape(1.5e9, 0.003)),
            ("250us", LinkShape(latency_s=250 * 1e-6)),
            ("64kbit,jitter=2s,shared", LinkShape(64e3, jitter_s=2.0, shared=True)),
            ("drop=5,stall=7+2s", LinkShape(drop_after=5, stall_after=7, stall_s=2.0)),
        ],
    )
    def test_reads(self, text, shape):
        assert LinkShape.parse(text) == shape

    @pytest.mark.parametrize(
        ("shape", "text"),
        [
            (LinkShape(), "none"),
            (LinkShape(100e6, 0.003), "100mbit,3ms"),
            (LinkShape(2.5e9, jitter_s=1e-3, shared=True), "2.5gbit,jitter=1ms,shared"),
            (LinkShape(stall_after=3, stall_s=0.5), "stall=3+500ms"),
        ],
    )
    def test_prints_what_a_person_would_write(self, shape, text):
        assert str(shape) == text

    @pytest.mark.parametrize(
        "text",
        [
            "wifi",
            "100",
            "100mb,3ms",
            "3ms,4ms",
            "jitter",
            "jitter=",
            "jitter=5mbit",
            "0mbit",
            "-3ms",
            "1e999mbit",
            "nans",
            "drop=",
            "drop=x",
            "drop=5+2s",
            "stall=5",
            "stall=5+0s",
            "stall=5+2mbit",
            "100mbit,,3ms",
            "shared,shared",
            "none,3ms",
        ],
    )
    def test_refuses_with_an_example(self, text):
        with pytest.raises(ConfigError, match="for example"):
            LinkShape.parse(text)

    def test_the_message_quotes_the_text(self):
        with pytest.raises(ConfigError, match="'wifi' in link '3ms,wifi'"):
            LinkShape.parse("3ms,wifi")

    def test_faults_begin_after_so_many_frames(self):
        shape = LinkShape.parse("stall=2+1s,drop=3")
        assert [shape.hold_s(sent) for sent in range(5)] == [0, 0, 1.0, math.inf, math.inf]

    def test_imports_without_torch(self):
        code = "import sys, prism.emulation.link; sys.exit('torch' in sys.modules)"
        source = str(Path(prism.__file__).parents[1])
        done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": source})
        assert done.returncode == 0


@pytest.fixture
def medium(tmp_path):
    opened = []

    def open_medium(text, nodes=3, name="medium"):
        opened.append(Medium(tmp_path / name, LinkShape.parse(text), nodes, random.Random(0)))
        return opened[-1]

    yield open_medium
    for one in opened:
        one.close()


class TestMedium:
    def test_a_frame_takes_its_air_time_and_the_latency(self, medium):
        assert medium("8mbit,3ms").reserve(0, 1000, 5.0) == pytest.approx(5.004)

    def test_frames_of_one_node_queue(self, medium):
        link = medium("8mbit")
        assert [link.reserve(0, 1000, 5.0) for _ in range(3)] == pytest.approx(
            [5.001, 5.002, 5.003]
        )
        assert link.reserve(0, 1000, 6.0) == pytest.approx(6.001)

    def test_nodes_do_not_disturb_each_other_unless_shared(self, medium):
        own, shared = medium("8mbit"), medium("8mbit,shared", name="shared")
        assert [own.reserve(node, 1000, 5.0) for node in range(3)] == pytest.approx([5.001] * 3)
        assert [shared.reserve(node, 1000, 5.0) for node in range(3)] == pytest.approx(
            [5.001, 5.002, 5.003]
        )

    def test_copies_arrive_together_with_the_last(self, medium):
        assert medium("8mbit").reserve(0, 1000, 5.0, (1, 2)) == pytest.approx(5.002)

    def test_senders_share_the_downlink_of_one_receiver(self, medium):
        link = medium("8mbit")
        assert link.reserve(1, 1000, 5.0, (0,)) == pytest.approx(5.001)
        assert link.reserve(2, 1000, 5.0, (0,)) == pytest.approx(5.002)

    def test_an_exchange_of_all_with_all_takes_each_link_once(self, medium):
        link = medium("8mbit")
        arrivals = [
            link.reserve(node, 1000, 5.0, [peer for peer in range(3) if peer != node])
            for node in range(3)
        ]
        assert arrivals == pytest.approx([5.002] * 3)

    def test_processes_share_one_file(self, medium, tmp_path):
        first = medium("8mbit,shared")
        first.reserve(0, 1000, 5.0)
        code = (
            "import sys; from prism.emulation.link import LinkShape\n"
            "from prism.emulation.medium import Medium\n"
            "medium = Medium(sys.argv[1], LinkShape.parse('8mbit,shared'), 3)\n"
            "print(medium.reserve(1, 1000, 5.0))"
        )
        source = str(Path(prism.__file__).parents[1])
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "medium"],
            env={"PYTHONPATH": source},
            capture_output=True,
            text=True,
            check=True,
        )
        assert float(done.stdout) == pytest.approx(5.002)
        assert first.reserve(2, 1000, 5.0) == pytest.approx(5.003)

    def test_refuses_a_file_of_another_cluster_and_an_unknown_node(self, medium):
        link = medium("8mbit", nodes=3)
        with pytest.raises(ConfigError, match="medium of 2 nodes"):
            medium("8mbit", nodes=2)
        with pytest.raises(ConfigError, match="node 3 is not"):
            link.reserve(3, 1, 0.0)
        with pytest.raises(ConfigError, match="node -1 is not"):
            link.reserve(0, 1, 0.0, (-1,))

    def test_closes_twice(self, medium):
        link = medium("8mbit")
        link.close()
        link.close()

    @given(
        shape=shapes(),
        sends=st.lists(
            st.tuples(
                st.integers(0, 2),
                st.integers(0, 10**6),
                st.floats(0.0, 100.0),
                st.sets(st.integers(0, 2)),
            ),
            max_size=8,
        ),
    )
    def test_nothing_arrives_too_early_and_air_time_is_never_sold_twice(self, shape, sends):
        with tempfile.NamedTemporaryFile() as file:
            link = Medium(file.name, shape, 3)
        uplinks, downlinks = {}, {}
        for node, nbytes, now, receivers in sends:
            copy_s = nbytes * 8 / (shape.bandwidth_bps or math.inf)
            arrival = link.reserve(node, nbytes, now, sorted(receivers))
            uplink = 0 if shape.shared else node
            sent = max(now, uplinks.get(uplink, 0.0)) + copy_s * max(1, len(receivers))
            if shape.bandwidth_bps is not None:  # else nothing is ever busy
                uplinks[uplink] = sent
            for receiver in receivers:
                downlinks[receiver] = downlinks.get(receiver, 0.0) + copy_s
                sent = max(sent, downlinks[receiver])
            slack = 1e-9 * (1 + arrival)
            assert arrival >= sent + shape.latency_s - slack
            if shape.shared or not receivers:
                assert arrival <= sent + shape.latency_s + shape.jitter_s + slack
        link.close()
