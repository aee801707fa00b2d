//! The daemons tepui-master and tepui-agent: flags and wiring.
