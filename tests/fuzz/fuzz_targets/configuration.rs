//! Any text as a configuration: it is refused with its mistakes, or accepted, and then what is written of it is the same.
#![no_main]

use control::config::Configuration;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(accepted) = Configuration::parse("fuzz", text) else {
        return;
    };
    let written = accepted.configuration.to_toml();
    let again = Configuration::parse("written", &written)
        .unwrap_or_else(|mistakes| panic!("what is written is refused: {mistakes}\n{written}"));
    assert_eq!(accepted.configuration, again.configuration, "{written}");
});
