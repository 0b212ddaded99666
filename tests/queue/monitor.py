#!/usr/bin/env python3
"""A monitor in another language: takes open watches off RabbitMQ and answers with verdicts.

    tests/queue/monitor.py --url amqp://127.0.0.1:PORT --prefix NAME --journal FILE --verdicts N

It follows docs/queue.md and nothing else. Its means of looking is the journal of the simulated cloud (FILE): a server
that was launched there and boots by itself is RUNNING. It ends with status 0 after N verdicts were confirmed, and with 1
when that takes longer than a minute. Needs pika (tests/queue/run installs it below target/).
"""

import argparse
import json
import sys
import time
import uuid

import pika

SCHEMA = "dispatcher.message/1"


def look(journal, target):
    """The journal's own record of this server, or None."""
    with open(journal, encoding="utf-8") as lines:
        for line in lines:
            if target in line:
                return json.loads(line)
    return None


def verdict(watch, word, text, raw):
    return {
        "schema": SCHEMA,
        "messageId": uuid.uuid4().hex,
        "kind": "verdict",
        "jobId": watch["jobId"],
        "epoch": watch["epoch"],
        "accountId": watch["accountId"],
        "issuedAt": time.time_ns() // 1000,
        "traceparent": watch["traceparent"],
        "body": {
            "watchId": watch["body"]["watchId"],
            "source": "python",
            "verdict": word,
            "text": text,
            "raw": raw,
        },
    }


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--url", required=True)
    args.add_argument("--prefix", default="dispatcher")
    args.add_argument("--journal", required=True)
    args.add_argument("--verdicts", type=int, default=1)
    args = args.parse_args()

    connection = pika.BlockingConnection(pika.URLParameters(args.url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_qos(prefetch_count=16)
    given = 0
    for method, properties, body in channel.consume(f"{args.prefix}.watch", inactivity_timeout=60):
        if method is None:
            print("no watch came within a minute", file=sys.stderr)
            return 1
        message = json.loads(body)
        if message["schema"] != SCHEMA:
            channel.basic_reject(method.delivery_tag, requeue=False)
            continue
        if message["kind"] != "watch.cloud":
            channel.basic_ack(method.delivery_tag)
            continue
        assert properties.message_id == message["messageId"] and properties.type == message["kind"], properties
        watch = message["body"]
        deadline = min(watch["deadline"] / 1e6, time.time() + 30)
        seen = look(args.journal, watch["target"])
        while seen is None and time.time() < deadline:
            connection.sleep(0.1)
            seen = look(args.journal, watch["target"])
        word = "unknown" if seen is None else "reached"
        text = f"the journal says of {watch['target']}: {'nothing' if seen is None else watch['expectation']}"
        answer = verdict(message, word, text, json.dumps(seen))
        # Raises when no queue takes it; the watch then stays unacknowledged and comes again.
        channel.basic_publish(
            f"{args.prefix}.jobs",
            "verdict.python",
            json.dumps(answer).encode(),
            pika.BasicProperties(
                content_type="application/json",
                delivery_mode=2,
                message_id=answer["messageId"],
                type="verdict",
                correlation_id=answer["jobId"],
                app_id="monitor.py",
            ),
            mandatory=True,
        )
        channel.basic_ack(method.delivery_tag)
        print(f"{word}: {text}")
        given += 1
        if given == args.verdicts:
            break
    channel.cancel()
    connection.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
