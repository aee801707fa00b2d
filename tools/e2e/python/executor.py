"""A custom executor on the v1 executor API, with nothing but Python's own library.

What a task does stands in its `data`: `run` stays until it is killed, `finish`, `fail` and
`finish-only` (without TASK_RUNNING) end at once, `sh COMMAND` ends as the command does,
`exit STATUS` ends the executor itself, `env FILE` writes the environment there.
Where EXECUTOR_LOG names a file, every call and event is written to it, a JSON row each.
"""

import base64
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid

PATH = "/slave(1)/api/v1/executor"
LOG = open(os.environ["EXECUTOR_LOG"], "a", buffering=1) if "EXECUTOR_LOG" in os.environ else None
IDS = {
    "framework_id": {"value": os.environ["MESOS_FRAMEWORK_ID"]},
    "executor_id": {"value": os.environ["MESOS_EXECUTOR_ID"]},
}


class UnixConnection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["MESOS_DOMAIN_SOCKET"])


def connect():
    if "MESOS_DOMAIN_SOCKET" in os.environ:
        return UnixConnection("localhost")
    return http.client.HTTPConnection(os.environ["MESOS_AGENT_ENDPOINT"])


class Executor:
    def __init__(self):
        self.lock = threading.Lock()
        self.tasks = {}
        self.updates = {}
        self.running = set()

    def log(self, row):
        if LOG:
            with self.lock:
                LOG.write(json.dumps(row) + "\n")

    def post(self, call):
        body = json.dumps({**IDS, **call})
        self.log({"call": json.loads(body)})
        connection = connect()
        connection.request("POST", PATH, body, {"Content-Type": "application/json", "Accept": "application/json"})
        return connection, connection.getresponse()

    def send(self, call):
        try:
            connection, response = self.post(call)
        except OSError:
            return  # Told again when the agent is back.
        if response.status not in (202, 503):
            print("refused:", response.status, response.read(), file=sys.stderr)
        connection.close()

    def update(self, task, state, message=None):
        status = {
            "task_id": {"value": task},
            "state": state,
            "source": "SOURCE_EXECUTOR",
            "executor_id": IDS["executor_id"],
            "timestamp": time.time(),
            "uuid": base64.b64encode(uuid.uuid4().bytes).decode(),
        }
        if message:
            status["message"] = message
        self.updates[status["uuid"]] = status
        if state != "TASK_RUNNING":
            self.running.discard(task)
        self.send({"type": "UPDATE", "update": {"status": status}})

    def launch(self, task):
        name = task["task_id"]["value"]
        self.tasks[name] = task
        what = base64.b64decode(task.get("data", "")).decode()
        word, _, rest = what.partition(" ")
        if word == "exit":
            sys.stdout.flush()
            os._exit(int(rest))
        if word == "finish-only":
            return self.update(name, "TASK_FINISHED")
        self.running.add(name)
        self.update(name, "TASK_RUNNING")
        if word == "finish":
            self.update(name, "TASK_FINISHED")
        elif word == "fail":
            self.update(name, "TASK_FAILED", "told to fail")
        elif word == "env":
            with open(rest + ".new", "w") as file:
                json.dump(dict(os.environ), file)
            os.rename(rest + ".new", rest)
        elif word == "sh":
            threading.Thread(target=self.shell, args=(name, rest), daemon=True).start()

    def shell(self, name, command):
        status = subprocess.run(["sh", "-c", command]).returncode
        if status == 0:
            self.update(name, "TASK_FINISHED")
        else:
            self.update(name, "TASK_FAILED", "exit %d" % status)

    def event(self, event):
        kind = event["type"]
        if kind == "LAUNCH":
            self.launch(event["launch"]["task"])
        elif kind == "LAUNCH_GROUP":
            for task in event["launch_group"]["task_group"]["tasks"]:
                self.launch(task)
        elif kind == "ACKNOWLEDGED":
            acknowledged = event["acknowledged"]
            self.updates.pop(acknowledged["uuid"], None)
            self.tasks.pop(acknowledged["task_id"]["value"], None)
        elif kind == "KILL":
            name = event["kill"]["task_id"]["value"]
            if name in self.running:
                self.update(name, "TASK_KILLED")
        elif kind == "MESSAGE":
            self.send({"type": "MESSAGE", "message": {"data": event["message"]["data"]}})
        elif kind == "SHUTDOWN":
            sys.exit(0)

    def subscribe(self):
        """Reads events until the stream breaks; whether there was a stream."""
        subscribe = {
            "unacknowledged_tasks": list(self.tasks.values()),
            "unacknowledged_updates": [{"status": status} for status in self.updates.values()],
        }
        try:
            _, response = self.post({"type": "SUBSCRIBE", "subscribe": subscribe})
            self.log({"subscribe-response": response.status})
            if response.status != 200:
                return False
            while True:
                length = response.readline()
                if not length:
                    return True
                event = json.loads(response.read(int(length)))
                self.log({"event": event})
                self.event(event)
        except (OSError, http.client.HTTPException):
            return False


def main():
    executor = Executor()
    stays = os.environ["MESOS_CHECKPOINT"] == "1"
    since = time.monotonic()
    while True:
        if executor.subscribe():
            since = time.monotonic()
        if not stays or time.monotonic() - since > 60:
            sys.exit(1)
        time.sleep(0.1)


main()
