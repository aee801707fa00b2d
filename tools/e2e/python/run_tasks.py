"""Runs command tasks with the unmodified pymesos: run_tasks.py MASTER COUNT COMMAND [URI].

A URI is fetched with its cache for each task.

Prints one JSON line: how many times each task was seen in each state, and what ended the run.
"""

import collections
import json
import sys
import threading

from addict import Dict
from pymesos import MesosSchedulerDriver, Scheduler

CPUS, MEM = 0.1, 32


class Tasks(Scheduler):
    def __init__(self, count, command, uris):
        self.command = command
        self.uris = uris
        self.left = ["task-%03d" % n for n in range(count)]
        self.open = set(self.left)
        self.states = collections.defaultdict(list)
        self.failure = None
        self.done = threading.Event()

    def registered(self, driver, framework_id, master_info):
        self.framework_id = framework_id.value

    def resourceOffers(self, driver, offers):
        for offer in offers:
            room = {r.name: r.scalar.value for r in offer.resources if r.type == "SCALAR"}
            infos = []
            while self.left and room.get("cpus", 0) >= CPUS and room.get("mem", 0) >= MEM:
                room["cpus"] -= CPUS
                room["mem"] -= MEM
                infos.append(self.task(self.left.pop(), offer.agent_id))
            driver.launchTasks(offer.id, infos, {"refuse_seconds": 0.1})

    def task(self, name, agent_id):
        task = Dict()
        task.task_id.value = name
        task.agent_id.value = agent_id.value
        task.name = name
        task.command.value = self.command
        task.command.uris = [dict(value=uri, cache=True) for uri in self.uris]
        task.resources = [
            dict(name="cpus", type="SCALAR", scalar={"value": CPUS}),
            dict(name="mem", type="SCALAR", scalar={"value": MEM}),
        ]
        return task

    def statusUpdate(self, driver, update):
        name = update.task_id.value
        self.states[name].append(update.state)
        if driver_is_terminal(update.state):
            self.open.discard(name)
            if not self.open:
                self.done.set()

    def error(self, driver, message):
        self.failure = message
        self.done.set()


def driver_is_terminal(state):
    return state in ("TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST")


def main():
    master, count, command = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    scheduler = Tasks(count, command, sys.argv[4:])
    framework = dict(user="root", name="pymesos", checkpoint=True)
    driver = MesosSchedulerDriver(scheduler, framework, master, use_addict=True)
    driver.start()
    finished = scheduler.done.wait(120)
    driver.stop()
    driver.join()
    print(json.dumps({"finished": finished, "error": scheduler.failure, "states": scheduler.states}))


main()
