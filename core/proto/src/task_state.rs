//! What Mesos says of the states of tasks beyond their names.

use crate::v1::TaskState;

impl TaskState {
    /// Whether no task leaves this state: it has ended, or is lost for good. An unreachable task may come
    /// back.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::TaskFinished
                | Self::TaskFailed
                | Self::TaskKilled
                | Self::TaskError
                | Self::TaskLost
                | Self::TaskDropped
                | Self::TaskGone
                | Self::TaskGoneByOperator
        )
    }
}
