// Runs tasks with the unmodified mesos-framework from npm: run_tasks.js HOST:PORT NUMBER FOLDER.
// Some finish, the last one is killed; then the framework is torn down. Prints the states of each task in order.
// The client logs into `logs` in the current folder.
"use strict";

const path = require("path");
const [address, number, folder] = process.argv.slice(2);
const { Scheduler, Mesos } = require(path.join(folder, "node_modules", "mesos-framework"));
const mesos = Mesos.getMesos();

const [host, port] = address.split(":");
const wanted = Number(number);
const states = {};
const ended = new Set();

function tasks(instances, script) {
  const greeting = new mesos.Environment.Variable("GREETING", "hello");
  return {
    instances,
    commandInfo: new mesos.CommandInfo(null, new mesos.Environment([greeting]), true, script, null, null),
    resources: { cpus: 0.1, mem: 32, ports: 1, disk: 0 },
  };
}

const scheduler = new Scheduler({
  masterUrl: host,
  port,
  frameworkName: "node",
  restartStates: [],
  tasks: {
    short: tasks(wanted, 'test "$GREETING $HOST" = "hello 127.0.0.1"'),
    long: tasks(1, "sleep 1000"),
  },
});

scheduler.on("ready", () => scheduler.subscribe());
scheduler.on("error", (error) => console.error(error.message || JSON.stringify(error)));
scheduler.on("update", ({ status }) => {
  const task = status.task_id.value;
  (states[task] = states[task] || []).push(status.state);
  if (status.state === "TASK_RUNNING" && task.includes("long")) {
    scheduler.kill(task, status.agent_id.value);
  }
  if (["TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR"].includes(status.state)) {
    ended.add(task);
  }
  if (ended.size === wanted + 1) {
    scheduler.teardown();
  }
});
scheduler.on("sent_teardown", () => {
  console.log(JSON.stringify(states));
  process.exit(0);
});
