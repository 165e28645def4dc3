"""Outcomes to batches per output partition, and what is done with a refused one."""

import time

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.producer.message_accumulator import BatchBuilder

from tests.factories import record
from worker.delivery import count_settled
from worker.events import dead_letter
from worker.lanes import Lane, Result, Run
from worker.metrics import Metrics
from worker.outbox import OutBatch, OutputTopics, outgoing, split_refused

TOPICS = OutputTopics(
    categories="c", attributes="a", dead_letters="d", num_partitions={"c": 4, "a": 2, "d": 1}
)


def result(offset, key_hash, attributes=b"{}"):
    return Result(record(offset=offset), b"k", key_hash, "r/1", b"%d" % offset, attributes)


class Producer(AIOKafkaProducer):
    """Only makes batches: no connection."""

    def __init__(self, batch_size):
        self._batch_size = batch_size

    def create_batch(self):
        return BatchBuilder(self._batch_size, 0)

    def __del__(self):
        pass


def test_outputs_go_by_key_and_keep_their_order():
    letter = dead_letter(record(b"bad", offset=9), "invalid_json", "d", "r/1")
    batches = outgoing([result(0, 5), result(1, 6), letter, result(2, 5)], TOPICS)
    placed = {(b.topic, b.partition): [m[3].record.offset for m in b.messages] for b in batches}
    assert placed == {
        ("c", 1): [0, 2], ("c", 2): [1], ("a", 1): [0, 2], ("a", 0): [1], ("d", 0): [9],
    }  # fmt: skip


def test_an_absent_output_is_not_sent():
    assert [batch.topic for batch in outgoing([result(0, 0, attributes=None)], TOPICS)] == ["c"]


def test_messages_fill_batches_of_the_producers_size():
    batch = OutBatch("c", 0, [(b"k", b"x" * 300, [], result(i, 0)) for i in range(10)])
    builders = list(batch.builders(Producer(1_000)))
    assert sum(builder.record_count() for builder in builders) == 10
    assert [builder.record_count() for builder in builders] == [3, 3, 3, 1]
    assert all(builder.size() <= 1_000 for builder in builders)


def test_a_message_over_the_size_still_goes_alone():
    batch = OutBatch("d", 0, [(None, b"x" * 5_000, [], result(0, 0))])
    [builder] = batch.builders(Producer(1_000))
    assert builder.record_count() == 1


def test_a_refused_batch_is_split_in_order():
    [batch] = [b for b in outgoing([result(i, 0) for i in range(5)], TOPICS) if b.topic == "c"]
    halves = split_refused(batch, TOPICS, [])
    assert [len(half.messages) for half in halves] == [2, 3]
    assert [m for half in halves for m in half.messages] == batch.messages


def test_a_refused_dead_letter_is_cut_and_says_so():
    letter = dead_letter(record(b"x" * 1_000, key=b"k"), "invalid_json", "d", "r/1")
    [batch] = outgoing([letter], TOPICS)
    [cut] = split_refused(batch, TOPICS, [])
    key, value, headers, _ = cut.messages[0]
    assert len(key) + len(value) == 500
    assert dict(headers)["value-length"] == b"1000"
    [again] = split_refused(cut, TOPICS, [])
    _, smaller, headers, _ = again.messages[0]
    assert len(smaller) < len(value)
    assert [v for k, v in headers if k == "value-length"] == [b"1000"]


def test_a_refused_output_becomes_a_dead_letter_with_the_whole_event():
    refused = result(3, 0)
    run = Run(Lane(TopicPartition("products", 0), 1), [result(2, 0), refused, result(4, 0)])
    categories, attributes = outgoing([refused], TOPICS)
    [instead] = split_refused(categories, TOPICS, [run])
    _, value, headers, outcome = instead.messages[0]
    assert instead.topic == "d"
    assert value == outcome.record.value
    assert dict(headers)["reason"] == b"output_too_large"
    # It is counted as what it became, and is one letter though both outputs are refused.
    assert run.outcomes[1] is outcome
    assert split_refused(attributes, TOPICS, [run]) == []
    metrics = Metrics()
    count_settled(metrics, [run], time.monotonic())
    count = metrics.registry.get_sample_value
    assert count("sortiment_results_total") == 2
    assert count("sortiment_dead_letters_total", {"reason": "output_too_large"}) == 1


def test_a_refused_dead_letter_loses_its_events_headers_before_its_value():
    event = record(b"x" * 100, headers=(("trace", b"y" * 500), ("reason", None)))
    letter = dead_letter(event, "invalid_json", "d", "r/1")
    [batch] = outgoing([letter], TOPICS)
    [bare] = split_refused(batch, TOPICS, [])
    [(key, value, headers, outcome)] = bare.messages
    assert (key, value) == (event.key, event.value)
    assert ("headers-left-out", b"2") in headers
    assert not any(name.startswith("original-") for name, _ in headers)
    [cut] = split_refused(bare, TOPICS, [])
    assert len(cut.messages[0][1]) < 100
    assert ("headers-left-out", b"2") in cut.messages[0][2]
    assert outcome.headers == headers
