//! The format against what libuci does with the same text, and round trips.

use proptest::prelude::*;

use super::*;

fn good(text: &str) -> Document {
    let (document, errors) = parse(text);
    assert_eq!(errors, [], "{text}");
    document
}

/// The only error of a text.
fn bad(text: &str) -> (usize, String) {
    let (_, errors) = parse(text);
    match errors.as_slice() {
        [error] => (error.line, error.message.clone()),
        other => panic!("{text:?}: {other:?}"),
    }
}

/// `section.option` = its values.
fn values(text: &str, option: &str) -> Vec<String> {
    let document = good(text);
    let entry = document.sections.last().and_then(|section| section.entry(option));
    entry.map(|entry| entry.values.iter().map(|value| value.text.to_string()).collect()).unwrap_or_default()
}

fn value(written: &str) -> String {
    values(&format!("config a\n\toption x {written}\n\toption z 1\n"), "x").concat()
}

#[test]
fn words_are_quoted_as_in_libuci() {
    for (written, expected) in [
        ("bare", "bare"),
        ("'single'", "single"),
        ("\"double\"", "double"),
        ("'it'\\''s'", "it's"),
        ("'a b'\"c d\"e", "a bc de"),
        ("a'b'c", "abc"),
        ("\"say \\\"hi\\\"\"", "say \"hi\""),
        ("\"a\\\\b\"", "a\\b"),
        ("'a\\b'", "a\\b"),
        ("a\\ b", "a b"),
        ("a\\#b", "a#b"),
        ("'a#b'", "a#b"),
        ("\"a;b\"", "a;b"),
        ("a#comment", "a"),
        ("'a'#comment", "a"),
        ("'a' # comment", "a"),
        ("'two\nlines'", "two\nlines"),
        ("\"two\nlines\"", "two\nlines"),
        ("'a\r\nb'", "a\r\nb"),
        ("\"joined \\\nline\"", "joined line"),
        ("joined\\\nword", "joinedword"),
        ("joined\\\r\nword", "joinedword"),
        ("'ünïcödé → ✓'", "ünïcödé → ✓"),
        ("\"\\ü\"", "ü"),
        ("'tab\there'", "tab\there"),
        ("''", ""),
        ("", ""),
    ] {
        assert_eq!(value(written), expected, "{written}");
    }
}

#[test]
fn commands_may_be_short_indented_and_joined() {
    let document = good("p test\nc type name\no a 1\n  l b 2 ; l b 3;o c 4\n");
    assert_eq!(document.package.as_deref(), Some("test"));
    let section = &document.sections[0];
    assert_eq!((section.kind.as_str(), section.name.as_deref()), ("type", Some("name")));
    let names: Vec<(&str, bool, usize)> =
        section.entries.iter().map(|entry| (entry.name.as_str(), entry.list, entry.values.len())).collect();
    assert_eq!(names, [("a", false, 1), ("b", true, 2), ("c", false, 1)]);
}

#[test]
fn a_file_may_end_anywhere_and_have_any_line_ends() {
    for text in
        ["config a b\n\toption x y", "config a b\r\n\toption x y\r\n", "config a b\n\n#\n \t\n\toption x y #"]
    {
        assert_eq!(values(text, "x"), ["y"], "{text:?}");
    }
    assert_eq!(good("").sections, []);
    assert_eq!(good("# only a comment").sections, []);
    assert_eq!(good("config a").sections.len(), 1);
}

#[test]
fn later_options_replace_and_lists_collect() {
    assert_eq!(values("config a\n option x 1\n option x 2\n", "x"), ["2"]);
    assert_eq!(values("config a\n option x 1\n list x 2\n", "x"), ["1", "2"]);
    assert_eq!(values("config a\n list x 1\n list x 2\n option x 3\n", "x"), ["3"]);
    assert_eq!(values("config a\n list x 1\n list x 1\n", "x"), ["1", "1"]);
    assert_eq!(values("config a\n option x 1\n option x ''\n", "x"), ["1"]);
}

#[test]
fn a_named_section_is_continued() {
    let document = good("config a n\n option x 1\nconfig b m\nconfig a n\n option y 2\n");
    assert_eq!(document.sections.len(), 2);
    assert_eq!(document.sections[0].line, 1);
    assert_eq!(document.sections[0].entry("y").map(Entry::line), Some(5));
    let (line, message) = bad("config a n\nconfig b n\n");
    assert_eq!((line, message.contains("of type 'a' in line 1")), (2, true), "{message}");
}

#[test]
fn anonymous_sections_are_counted_by_type() {
    let document = good("config a\nconfig b\nconfig a n\nconfig a\n");
    let labels: Vec<String> = (0..4).map(|index| document.label(index)).collect();
    assert_eq!(labels, ["@a[0]", "@b[0]", "n", "@a[2]"]);
}

#[test]
fn every_value_knows_its_line() {
    let document = good("\n\nconfig a n\n\toption x 'one\ntwo'\n\tlist y 1\n\n\tlist y 2\n");
    let section = &document.sections[0];
    assert_eq!(section.line, 3);
    let line = |name| section.entry(name).map(|e| e.values.iter().map(|v| v.line).collect::<Vec<_>>());
    assert_eq!(line("x"), Some(vec![4]));
    assert_eq!(line("y"), Some(vec![6, 8]));
}

#[test]
fn a_wrong_line_does_not_hide_the_next() {
    let (document, errors) =
        parse("config a n\n\topt x 1\n\toption y\\\n 2 3\n\toption z 4\nconfig\n\toption q 1\n");
    let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [2, 3, 6]);
    assert_eq!(bad("config a\n;option x 1\n").0, 2);
    assert_eq!(document.sections.len(), 1);
    assert!(document.sections[0].entry("z").is_some());
    assert!(document.sections[0].entry("q").is_none(), "an option of a broken section goes nowhere");
}

#[test]
fn everything_is_bounded() {
    let (_, message) = bad(&"#".repeat(MAX_BYTES + 1));
    assert!(message.contains("larger than"), "{message}");
    assert!(parse(&"#".repeat(MAX_BYTES)).1.is_empty());
    let (document, errors) = parse(&"config a\n".repeat(MAX_SECTIONS + 1));
    assert_eq!((document.sections.len(), errors.len()), (MAX_SECTIONS, 1));
    let options: String = (0..=MAX_OPTIONS).map(|index| format!("option o{index} 1\n")).collect();
    let (document, errors) = parse(&format!("config a\n{options}"));
    assert_eq!((document.sections[0].entries.len(), errors.len()), (MAX_OPTIONS, 1));
    let (_, errors) = parse(&"nonsense\n".repeat(10_000));
    assert_eq!(errors.len(), MAX_ERRORS + 1);
}

#[test]
fn hostile_quotes_take_linear_time() {
    let started = std::time::Instant::now();
    for piece in ["o a '\n", "o a \"\\\"\n", "'", "\"", "\\\n", "config a '\"\n", ";"] {
        let (_, errors) = parse(&piece.repeat(MAX_BYTES / piece.len()));
        assert!(errors.len() <= MAX_ERRORS + 1);
    }
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

/// Files as OpenWrt's packages write them.
#[test]
fn files_of_openwrt_packages_parse_and_survive_a_round_trip() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/uci");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).expect("the fixtures are there") {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("text");
        let document = good(&text);
        assert!(document.sections.len() > 2, "{}", path.display());
        assert_eq!(plain(good(&document.to_uci())), plain(document), "{}", path.display());
        count += 1;
    }
    assert!(count >= 5);
}

/// A document without lines, which a writer cannot keep.
fn plain(mut document: Document) -> Document {
    for section in &mut document.sections {
        section.line = 0;
        for value in section.entries.iter_mut().flat_map(|entry| &mut entry.values) {
            value.line = 0;
        }
    }
    document
}

fn any_document() -> impl Strategy<Value = Document> {
    let text = "([^\\x00]|['\"\\\\#; \t\n\r]){1,12}";
    let entry = ("[a-z0-9_]{1,6}", any::<bool>(), prop::collection::vec(text, 1..4)).prop_map(
        |(name, list, mut texts)| {
            if !list {
                texts.truncate(1);
            }
            let values =
                texts.into_iter().map(|text| Value { text: Zeroizing::new(text), line: 0 }).collect();
            Entry { name, list, values }
        },
    );
    let section = ("[!-~]{1,8}", any::<bool>(), prop::collection::vec(entry, 0..5));
    let package = prop::option::of("[a-z0-9_-]{1,8}");
    (package, prop::collection::vec(section, 0..6)).prop_map(|(package, sections)| {
        let sections = sections.into_iter().enumerate().map(|(index, (kind, named, mut entries))| {
            let mut seen = std::collections::HashSet::new();
            entries.retain(|entry| seen.insert(entry.name.clone()));
            Section { kind, name: named.then(|| format!("s{index}")), entries, line: 0 }
        });
        Document { package, sections: sections.collect() }
    })
}

proptest! {
    #[test]
    fn writing_and_parsing_is_the_identity(document in any_document()) {
        let text = document.to_uci();
        let (parsed, errors) = parse(&text);
        prop_assert_eq!(errors, []);
        prop_assert_eq!(plain(parsed), document);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (document, errors) = parse(&text);
        for error in errors {
            prop_assert!(error.line <= 1 + text.matches('\n').count());
        }
        // What was understood can be written, and reads the same.
        let (again, errors) = parse(&document.to_uci());
        prop_assert_eq!(errors, []);
        prop_assert_eq!(plain(again), plain(document));
    }

    #[test]
    fn nothing_that_looks_like_uci_makes_it_panic(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "config ", "option ", "list ", "package ", "a", "b ", "'", "\"", "\\", "#", ";", "\n", "\r\n", "\t", "\0", "é",
            ]),
            0..80,
        )
    ) {
        let (document, _) = parse(&words.concat());
        let (again, errors) = parse(&document.to_uci());
        prop_assert_eq!(errors, []);
        prop_assert_eq!(plain(again), plain(document));
    }

    #[test]
    fn crlf_means_the_same(document in any_document()) {
        // Line ends inside of values are part of them, so only documents without are compared.
        let text = document.to_uci();
        prop_assume!(!document.sections.iter().flat_map(|s| &s.entries).flat_map(|e| &e.values).any(|v| v.text.contains(['\n', '\r'])));
        let (parsed, errors) = parse(&text.replace('\n', "\r\n"));
        prop_assert_eq!(errors, []);
        prop_assert_eq!(plain(parsed), document);
    }
}

#[test]
fn debug_output_shows_no_keys() {
    let document = good("config a\n option private_key hidden\n option password hidden\n option x shown\n");
    let text = format!("{document:?}");
    assert!(!text.contains("hidden") && text.contains("shown"), "{text}");
}
