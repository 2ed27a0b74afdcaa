//! What the command line shares with the tests.
