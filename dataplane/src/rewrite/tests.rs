//! Tests of the rewriters.

mod cutting;
mod encapsulating;
mod hostile;
mod kernel;
mod translating;
mod tunnelling;
mod vectors;
