//! Offers agents to frameworks in turn.
