//! Remembers flows.
