//! Writes what a package holds beside the programs: manual pages and completions.
//!
//!   cargo run -p cli --example manuals -- FOLDER
//!
//! FOLDER/man has uvs.1, a page for each of its commands, uvsd.8 and uvs.toml.5, made of the arguments' and the keys' own
//! descriptions; FOLDER/completions has those of bash, zsh and fish, for both programs.

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use control::config::keys::{Key, TABLES, Table};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), None) = (arguments.next(), arguments.next()) else {
        return Err("usage: manuals FOLDER".into());
    };
    let folder = PathBuf::from(folder);
    let [man, completions] = ["man", "completions"].map(|name| folder.join(name));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(cli::arguments::Arguments::command(), &man)?;
    let uvsd = control::arguments::Arguments::command();
    Man::new(uvsd).section("8").generate_to(&man)?;
    fs::write(man.join("uvs.toml.5"), configuration_page())?;
    complete(&completions)?;
    Ok(())
}

fn complete(folder: &Path) -> std::io::Result<()> {
    for shell in Shell::value_variants() {
        if !matches!(shell, Shell::Bash | Shell::Zsh | Shell::Fish) {
            continue;
        }
        let mut uvs = cli::arguments::Arguments::command();
        clap_complete::generate_to(*shell, &mut uvs, "uvs", folder)?;
        let mut uvsd = control::arguments::Arguments::command();
        clap_complete::generate_to(*shell, &mut uvsd, "uvsd", folder)?;
    }
    Ok(())
}

/// uvs.toml(5): every key of the configuration.
fn configuration_page() -> String {
    let version = concat!("uvs ", env!("CARGO_PKG_VERSION"));
    let mut page = Roff::new();
    page.control("TH", ["uvs.toml", "5", "", version]);
    page.control("SH", ["NAME"]);
    page.text([roman("uvs.toml - configuration of uvsd")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([
        roman("A file of TOML with the tables below. "),
        bold("uvsd --check --config FILE"),
        roman(" tells every mistake with its line and what is accepted; SIGHUP lets a running uvsd take a changed file over, whole or not at all."),
    ]);
    for table in TABLES {
        page.control("SH", [header(table).as_str()]);
        for key in table.keys {
            describe(&mut page, key);
        }
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("uvsd"), roman("(8), "), bold("uvs"), roman("(1)")]);
    page.render()
}

/// A table's header as it is written.
fn header(table: &Table) -> String {
    match table.name {
        "" => "TABLES".to_owned(),
        "port" => "[port.NAME]".to_owned(),
        // One of a kind; all others are lists of tables.
        name @ ("director" | "timeouts" | "ipvs") => format!("[{name}]"),
        name => format!("[[{name}]]"),
    }
}

fn describe(page: &mut Roff, key: &Key) {
    page.control("TP", []);
    page.text([bold(key.name)]);
    page.text([roman(format!("{}.", key.about))]);
    page.control("br", []);
    page.text([roman(format!("Accepted: {}.", key.accepts.describe()))]);
    if let Some(default) = key.default {
        page.control("br", []);
        page.text([roman(format!("Without it: {default}."))]);
    } else {
        page.control("br", []);
        page.text([roman("Must be there.")]);
    }
}
