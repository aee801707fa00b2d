//! Permits every action.
