//! Tests of the rewriters.

mod cutting;
mod kernel;
mod translating;
mod tunnelling;
mod vectors;
