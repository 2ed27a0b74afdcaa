//! Writes what a package holds beside the programs: manual pages and completions.
//!
//!   cargo run -p cli --example manuals -- FOLDER 2026-01-31
//!
//! The date is that of the pages.
//! FOLDER/man has uvs.1, a page for each of its commands and theirs, uvsd.8 and uvs.toml.5, made of the arguments' and the keys' own
//! descriptions; FOLDER/completions has those of bash, zsh and fish, for both programs.

use clap::{Command, CommandFactory, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use control::config::keys::{Key, TABLES, Table};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

const SOURCE: &str = concat!("uvs ", env!("CARGO_PKG_VERSION"));

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), Some(date), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: manuals FOLDER YEAR-MONTH-DAY".into());
    };
    let date = date.into_string().map_err(|_| "the date is no text")?;
    let folder = PathBuf::from(folder);
    let [man, completions] = ["man", "completions"].map(|name| folder.join(name));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let mut uvs = cli::arguments::Arguments::command().disable_help_subcommand(true);
    uvs.build();
    write_pages(&uvs, &date, &man)?;
    write_page(&control::arguments::Arguments::command(), "8", &date, &man)?;
    fs::write(man.join("uvs.toml.5"), configuration_page(&date))?;
    complete(&completions)?;
    Ok(())
}

/// Pages of a command, its commands and theirs.
fn write_pages(command: &Command, date: &str, folder: &Path) -> std::io::Result<()> {
    let below = command.get_subcommands();
    for below in below.filter(|below| below.get_name() != "help") {
        write_pages(below, date, folder)?;
    }
    write_page(command, "1", date, folder)
}

fn write_page(command: &Command, section: &str, date: &str, folder: &Path) -> std::io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let page = Man::new(command.clone()).title(name.to_uppercase());
    let page = page.section(section).date(date).source(SOURCE);
    let page = page.manual("uvs");
    let mut text = Vec::new();
    page.render(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    fs::write(folder.join(page.get_filename()), without_idle_breaks(&text))
}

/// A break beside vertical space does nothing, and mandoc warns of it.
fn without_idle_breaks(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let is_space = |at: Option<usize>| {
        let line = at.and_then(|at| lines.get(at));
        line.is_some_and(|line| [".sp", ""].contains(line))
    };
    let mut kept = String::new();
    for (at, line) in lines.iter().enumerate() {
        if *line != ".br" || !(is_space(at.checked_sub(1)) || is_space(Some(at + 1))) {
            kept.push_str(line.trim_end());
            kept.push('\n');
        }
    }
    kept
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
fn configuration_page(date: &str) -> String {
    let mut page = Roff::new();
    page.control("TH", ["UVS.TOML", "5", date, SOURCE, "uvs"]);
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
        name @ ("director" | "timeouts" | "ipvs" | "access" | "access.tls") => format!("[{name}]"),
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
