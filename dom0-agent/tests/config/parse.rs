//! The grammar of configurations: what it accepts, how it complains, and that nothing makes it panic or hang.
//!
//! Expected messages are stock libxlu's (observed by feeding it the same texts), with the column behind them.

use dom0_agent::config::diag::{Pos, Report};
use dom0_agent::config::limits::{
    MAX_LIST_DEPTH, MAX_LIST_ITEMS, MAX_REPORTED_ERRORS, MAX_SETTINGS, MAX_SOURCE_BYTES,
};
use dom0_agent::config::parse::{FAILED, parse, with_overrides};
use dom0_agent::config::tree::{Tree, Value, ValueKind};
use proptest::prelude::*;

fn tree(text: &str) -> Tree {
    parse("F", text.as_bytes()).unwrap_or_else(|r| panic!("{text:?}: {}", r.printed()))
}

/// A value in a compact notation: atoms in quotes, lists in brackets.
fn show(value: &Value) -> String {
    match &value.kind {
        ValueKind::Atom(text) => format!("{text:?}"),
        ValueKind::List(items) => {
            format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "))
        }
    }
}

fn value(text: &str, key: &str) -> String {
    tree(text)
        .find(key)
        .map_or("none".into(), |s| show(&s.value))
}

/// Everything printed for a text that does not parse, without the last line, which is always the same.
fn complaints(text: &[u8]) -> Vec<String> {
    let report: Report = match parse("F", text) {
        Ok(_) => panic!("accepted: {:?}", String::from_utf8_lossy(text)),
        Err(report) => report,
    };
    let printed = report.printed();
    let lines: Vec<String> = printed.lines().map(str::to_owned).collect();
    assert_eq!(lines.last().map(String::as_str), Some(FAILED));
    lines[..lines.len() - 1].to_vec()
}

#[test]
fn values_are_text_or_lists() {
    let cases = [
        ("a=1\n", "\"1\""),
        ("a='x'", "\"x\""),
        ("a = \"x y\" # comment\n", "\"x y\""),
        ("a=0x1f\n", "\"0x1f\""),
        ("a=1;b=2", "\"1\""),
        (";;a=1;;", "\"1\""),
        ("\n\n a\t=\t1\n\n", "\"1\""),
        ("a=[]", "[]"),
        ("a=[\n\n]", "[]"),
        ("a=[1,'x',]", "[\"1\" \"x\"]"),
        ("a=[ # c\n 1 # d\n , # e\n 2\n , # f\n ]", "[\"1\" \"2\"]"),
        ("a=[[1,2],[],[[3]]]", "[[\"1\" \"2\"] [] [[\"3\"]]]"),
        ("a=1\na=2\n", "\"2\""),
        ("a=[1]\na=2\n", "\"2\""),
        ("a='1'\na+='2'\na+=3\n", "\"123\""),
        ("a=[1]\na+=[2,3]\na+=[]\n", "[\"1\" \"2\" \"3\"]"),
        ("a+='1'\n", "\"1\""),
        ("", "none"),
        ("b=1", "none"),
    ];
    for (text, want) in cases {
        assert_eq!(value(text, "a"), want, "{text:?}");
    }
    assert_eq!(
        value("vif.default.bridge='b'\nx_1.y=1\n", "vif.default.bridge"),
        "\"b\""
    );
}

#[test]
fn escapes_give_what_the_manual_promises() {
    let cases = [
        (r#"a="\a\b\f\n\r\t\v""#, "\x07\x08\x0c\n\r\t\x0b"),
        (r#"a="\\\'\"""#, "\\'\""),
        (r#"a='\'"\\'"#, "'\"\\"),
        (r#"a="\x41\x7a!""#, "Az!"),
        (r#"a="\101\60\7.""#, "A0\x07."),
        (r#"a="\xc3\xa9é""#, "éé"),
    ];
    for (text, want) in cases {
        assert_eq!(
            tree(text).find("a").and_then(|s| s.value.atom()),
            Some(want),
            "{text}"
        );
    }
}

#[test]
fn every_node_knows_its_place() {
    let tree = tree("\n  name = 'x'\nlist = [ 1,\n   [ 2 ] ]\n");
    let at = |line, column| Pos { line, column };
    let name = tree.find("name").unwrap();
    assert_eq!((name.pos, name.value.pos), (at(2, 3), at(2, 10)));
    let list = tree.find("list").unwrap();
    assert_eq!((list.pos, list.value.pos), (at(3, 1), at(3, 8)));
    let ValueKind::List(items) = &list.value.kind else {
        panic!("not a list")
    };
    let ValueKind::List(inner) = &items[1].kind else {
        panic!("not a list")
    };
    assert_eq!(
        (items[0].pos, items[1].pos, inner[0].pos),
        (at(3, 10), at(4, 4), at(4, 6))
    );
}

/// Texts and the one complaint about each.
const COMPLAINTS: [(&str, &str); 22] = [
    (
        "Abc=1\nb=2\n",
        "F:1: config parsing error near `Abc=1': lexical error (column 1: keys are lower case, and text stands in quotes)",
    ),
    (
        "name = foo\n",
        "F:1: config parsing error near `foo': syntax error, unexpected IDENT, expecting STRING or NUMBER or '[' (column 8: text stands in quotes)",
    ),
    (
        "a 1\n",
        "F:1: config parsing error near `1': syntax error, unexpected NUMBER, expecting += or '=' (column 3)",
    ),
    (
        "\na=\n",
        "F:2: config parsing error near <newline>: syntax error, unexpected NEWLINE, expecting STRING or NUMBER or '[' (column 3)",
    ),
    (
        "a=1 b=2\n",
        "F:1: config parsing error near `b': syntax error, unexpected IDENT, expecting $end (column 5)",
    ),
    (
        "a=[1 2]\n",
        "F:1: config parsing error near `2': syntax error, unexpected NUMBER, expecting ']' (column 6)",
    ),
    (
        "a=[,]\n",
        "F:1: config parsing error near `,': syntax error, unexpected ',', expecting ']' (column 4)",
    ),
    (
        "a=[1,,2]\n",
        "F:1: config parsing error near `,': syntax error, unexpected ',', expecting ']' (column 6)",
    ),
    (
        "a=\"x",
        "F:1: config parsing error near `\"x': lexical error (column 3: a string ends on the line where it starts)",
    ),
    (
        "a=\"x\nb=1\n",
        "F:1: config parsing error near `\"x': lexical error (column 3: a string ends on the line where it starts)",
    ),
    (
        "a='x\\",
        "F:1: config parsing error near `'x\\': lexical error (column 3: a string ends on the line where it starts)",
    ),
    (
        "a=1 # no newline",
        "F:1: config parsing error near `#': lexical error (column 5: a comment on the last line needs a line end)",
    ),
    (
        "a=1\r\n",
        "F:1: config parsing error near `': lexical error (column 4: a carriage return: save the file with Unix line ends)",
    ),
    (
        "= 3\n",
        "F:1: config parsing error near `=': syntax error, unexpected '=', expecting $end or IDENT or NEWLINE or ';' (column 1)",
    ),
    (
        "a=\"\\q\"\n",
        "F:1: config parsing error near `\"\\q\"': invalid character after backlash in quoted string (column 3)",
    ),
    (
        "a=[1]\na+=\"x\"\n",
        "F:2: config parsing error near `\"x\"': can't add [list] to \"string\" or vice versa (column 4)",
    ),
    (
        "a=]\n",
        "F:1: config parsing error near `]': syntax error, unexpected ']', expecting STRING or NUMBER or '[' (column 3)",
    ),
    (
        "[1]\n",
        "F:1: config parsing error near `[': syntax error, unexpected '[', expecting $end or IDENT or NEWLINE or ';' (column 1)",
    ),
    (
        "a=[1,\n2",
        "F:2: config parsing error near `': syntax error, unexpected $end, expecting ']' (column 2)",
    ),
    (
        "a",
        "F:1: config parsing error near `': syntax error, unexpected $end, expecting += or '=' (column 2)",
    ),
    (
        "memory=12z\n",
        "F:1: config parsing error near `z': syntax error, unexpected IDENT, expecting $end (column 10)",
    ),
    (
        "a='x''y'\n",
        "F:1: config parsing error near `'y'': syntax error, unexpected STRING, expecting $end (column 6)",
    ),
];

#[test]
fn complaints_are_in_stock_wording_with_the_column_behind() {
    for (text, want) in COMPLAINTS {
        assert_eq!(complaints(text.as_bytes()), [want], "{text:?}");
    }
}

#[test]
fn several_errors_are_told_at_once() {
    let text = b"a=\nb=2\nc=\nd=@\ne=[1\n'x'\n]\nf=g\nh=1\n";
    let lines: Vec<String> = complaints(text);
    let starts = ["F:1: ", "F:3: ", "F:4: ", "F:6: ", "F:8: "];
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn a_lexical_error_silences_the_rest_of_its_line_only() {
    assert_eq!(complaints(b"a=@ b c\nd=\n").len(), 2);
}

#[test]
fn what_looks_like_python_is_told() {
    for text in ["a=-1\n", "def f(x):\n  return 1\n", "import os.path\n.x\n"] {
        let lines = complaints(text.as_bytes());
        let hint = "warning: Config file looks like it contains Python code.";
        assert!(lines.iter().any(|l| l == hint), "{text:?}: {lines:#?}");
    }
    assert!(complaints(b"a=@\n").iter().all(|l| !l.contains("Python")));
}

#[test]
fn overrides_come_last_and_win() {
    let overrides = ["memory=64".to_owned(), "vif=['']".to_owned()];
    let all = with_overrides(b"memory=128\nname='x'", &overrides);
    let text = std::str::from_utf8(&all).unwrap();
    assert_eq!(value(text, "memory"), "\"64\"");
    assert_eq!(value(text, "vif"), "[\"\"]");
    assert_eq!(with_overrides(b"a=1", &[]), b"a=1");
}

#[test]
fn text_that_is_not_utf8_is_refused_where_it_matters() {
    assert!(parse("F", b"# \xff\na=1\n").is_ok());
    assert!(complaints(b"a='\xff'\n")[0].contains("not UTF-8"));
    assert!(complaints(b"a=\"\\xff\"\n")[0].contains("not UTF-8"));
    assert!(complaints(b"a=\"x\\0\"\n")[0].contains("zero byte"));
    assert!(complaints(b"a=\"\\x4\"\n")[0].contains("hex"));
    assert!(complaints(b"a=\"\\400\"\n")[0].contains("octal"));
}

#[test]
fn limits_are_told_by_name_and_number() {
    let deep = format!(
        "a={}1{}\n",
        "[".repeat(MAX_LIST_DEPTH + 1),
        "]".repeat(MAX_LIST_DEPTH + 1)
    );
    assert!(complaints(deep.as_bytes())[0].contains("more than 8 lists inside each other"));
    let fits = format!(
        "a={}1{}\n",
        "[".repeat(MAX_LIST_DEPTH),
        "]".repeat(MAX_LIST_DEPTH)
    );
    assert!(parse("F", fits.as_bytes()).is_ok());
    let long = format!("a=[{}]\n", "1,".repeat(MAX_LIST_ITEMS + 1));
    assert!(complaints(long.as_bytes())[0].contains("list items"));
    let many = "a=1\n".repeat(MAX_SETTINGS + 1);
    assert!(complaints(many.as_bytes())[0].contains("settings"));
    assert!(complaints(&vec![b'\n'; MAX_SOURCE_BYTES + 1])[0].contains("bytes"));
    let doubling = format!("a=[{}]\n{}", "1,".repeat(1000), "a+=[1]\n".repeat(100));
    assert!(complaints(doubling.as_bytes())[0].contains("list items"));
}

#[test]
fn a_flood_of_errors_is_summed_up() {
    let lines = complaints("a=\n".repeat(100).as_bytes());
    assert_eq!(lines.len(), MAX_REPORTED_ERRORS + 1);
    assert_eq!(lines[MAX_REPORTED_ERRORS], "F: 80 more errors");
}

/// Texts made of the pieces that the grammar is about, so that random ones reach deep.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("a"),
        Just("b_1"),
        Just("="),
        Just("+="),
        Just("["),
        Just("]"),
        Just(","),
        Just("\n"),
        Just(";"),
        Just("'x'"),
        Just("\"y\\n\""),
        Just("12"),
        Just("0x1"),
        Just("#c\n"),
        Just("#"),
        Just("'"),
        Just("\""),
        Just("\\"),
        Just("-"),
        Just("A"),
        Just("\r"),
        Just(" "),
        Just("é"),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn arbitrary_bytes_end_in_a_tree_or_a_report(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Err(report) = parse("F", &bytes) {
            prop_assert!(report.has_errors());
        }
    }

    #[test]
    fn arbitrary_grammar_ends_in_a_tree_or_a_report(text in pieces()) {
        match parse("F", text.as_bytes()) {
            Ok(tree) => prop_assert!(tree.settings.len() <= text.len()),
            Err(report) => prop_assert!(report.has_errors()),
        }
    }

    #[test]
    fn any_text_survives_quoting(content in "[^\u{0}]{0,40}") {
        let quoted: String = content.bytes().map(|b| format!("\\x{b:02x}")).collect();
        let text = format!("a=\"{quoted}\"");
        let tree = tree(&text);
        prop_assert_eq!(tree.find("a").and_then(|s| s.value.atom()), Some(content.as_str()));
    }

    #[test]
    fn positions_lie_in_the_text(text in pieces()) {
        let lines = u32::try_from(text.lines().count()).unwrap_or(u32::MAX) + 1;
        if let Err(report) = parse("F", text.as_bytes()) {
            let places = report.items.iter().filter_map(|d| d.pos);
            prop_assert!(places.into_iter().all(|p| p.line >= 1 && p.line <= lines && p.column >= 1));
        }
    }
}
