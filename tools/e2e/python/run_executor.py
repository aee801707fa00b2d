"""Runs tasks in a custom executor with the unmodified pymesos: run_executor.py MASTER COUNT.

Every task asks before it ends: one of two is told to go on, the other is killed. Prints one JSON
line: what was seen of each task, of the messages and of the executors' ends, and what ended the run.
"""

import collections
import json
import os
import sys
import threading

from addict import Dict
from pymesos import MesosSchedulerDriver, Scheduler, decode_data, encode_data

CPUS, MEM = 0.1, 16


class Asking(Scheduler):
    def __init__(self, count):
        self.left = ["task-%02d" % n for n in range(count)]
        self.open = set(self.left)
        self.states = collections.defaultdict(list)
        self.pids = set()
        self.asked = []
        self.ends = []
        self.failure = None
        self.done = threading.Event()
        self.ended = threading.Event()

    def executor(self):
        executor = Dict()
        executor.executor_id.value = "threads"
        executor.name = "threads"
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "threads.py")
        executor.command.value = "exec %s %s" % (sys.executable, script)
        executor.resources = self.resources(CPUS, MEM)
        return executor

    def resources(self, cpus, mem):
        return [
            dict(name="cpus", type="SCALAR", scalar={"value": cpus}),
            dict(name="mem", type="SCALAR", scalar={"value": mem}),
        ]

    def resourceOffers(self, driver, offers):
        for offer in offers:
            infos = []
            room = {r.name: r.scalar.value for r in offer.resources if r.type == "SCALAR"}
            fits = min(int(room.get("cpus", 0) / CPUS), int(room.get("mem", 0) / MEM)) - 1
            while self.left and len(infos) < fits:
                infos.append(self.task(self.left.pop(), offer.agent_id))
            driver.launchTasks(offer.id, infos, {"refuse_seconds": 0.1})

    def task(self, name, agent_id):
        task = Dict()
        task.task_id.value = name
        task.agent_id.value = agent_id.value
        task.name = name
        task.executor = self.executor()
        task.resources = self.resources(CPUS, MEM)
        return task

    def frameworkMessage(self, driver, executor_id, agent_id, message):
        word, name = decode_data(message).decode().split(" ")
        assert word == "ready"
        self.asked.append(name)
        if int(name[-1]) % 2:
            driver.killTask(dict(value=name))
        else:
            answer = encode_data(b"go " + name.encode())
            driver.sendFrameworkMessage(executor_id, agent_id, answer)

    def statusUpdate(self, driver, update):
        name = update.task_id.value
        self.states[name].append(update.state)
        self.pids.add(update.container_status.executor_pid)
        if update.state not in ("TASK_STAGING", "TASK_STARTING", "TASK_RUNNING"):
            self.open.discard(name)
            if not self.open:
                self.done.set()
                end = encode_data(b"end")
                driver.sendFrameworkMessage(dict(value="threads"), update.agent_id, end)

    def executorLost(self, driver, executor_id, agent_id, status):
        self.ends.append(executor_id.value)
        self.ended.set()

    def error(self, driver, message):
        self.failure = message
        self.done.set()
        self.ended.set()


def main():
    scheduler = Asking(int(sys.argv[2]))
    framework = dict(user="root", name="pymesos", checkpoint=True)
    driver = MesosSchedulerDriver(scheduler, framework, sys.argv[1], use_addict=True)
    driver.start()
    finished = scheduler.done.wait(60) and scheduler.ended.wait(30)
    driver.stop()
    driver.join()
    print(
        json.dumps(
            {
                "finished": finished,
                "error": scheduler.failure,
                "states": scheduler.states,
                "asked": sorted(scheduler.asked),
                "processes": len(scheduler.pids),
                "ends": scheduler.ends,
            }
        )
    )


main()
