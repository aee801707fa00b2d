//! Access control lists in the form of Mesos.
