"""A custom executor with the unmodified pymesos: each task is a thread.

A task says "ready" with its name to the framework, and ends when it is told to go on, or killed.
The executor ends when it is told to.
"""

import threading

from addict import Dict
from pymesos import Executor, MesosExecutorDriver, decode_data, encode_data


class Threads(Executor):
    def __init__(self):
        self.tasks = {}

    def launchTask(self, driver, task):
        name = task.task_id.value
        self.tasks[name] = task = {"event": threading.Event(), "end": None}
        threading.Thread(target=self.run, args=(driver, name, task), daemon=True).start()

    def run(self, driver, name, task):
        self.update(driver, name, "TASK_RUNNING")
        driver.sendFrameworkMessage(encode_data(b"ready " + name.encode()))
        task["event"].wait()
        self.update(driver, name, task["end"])

    def end(self, name, state):
        task = self.tasks[name]
        task["end"] = state
        task["event"].set()

    def update(self, driver, name, state):
        update = Dict()
        update.task_id.value = name
        update.state = state
        driver.sendStatusUpdate(update)

    def frameworkMessage(self, driver, message):
        word, _, name = decode_data(message).decode().partition(" ")
        if word == "end":
            return driver.stop()
        self.end(name, "TASK_FINISHED")

    def killTask(self, driver, task_id):
        self.end(task_id.value, "TASK_KILLED")


MesosExecutorDriver(Threads(), use_addict=True).run()
