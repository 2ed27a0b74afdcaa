//! The counts that readers see are those that are held.

#[test]
fn the_readmes_table_has_the_recorded_instructions() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
    let baseline: toml::Table = read("instructions.toml").parse().unwrap();
    let readme = read("README.md");
    let (_, rest) = readme.split_once("<!-- instructions -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- /instructions -->").unwrap();
    let shown: Vec<_> = table
        .lines()
        .skip(2)
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            (cells[1].to_owned(), cells[2].parse().unwrap())
        })
        .collect();
    let recorded: Vec<(String, i64)> = baseline
        .iter()
        .map(|(mode, count)| (mode.clone(), count.as_integer().unwrap()))
        .collect();
    assert_eq!(shown, recorded);
    assert!(recorded.len() >= 5);
}
