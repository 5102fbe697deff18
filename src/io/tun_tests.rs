use super::*;

#[test]
fn names() {
    for good in ["bond0", "tun%d", "a", "x23456789012345"] {
        assert!(check_name(good).is_ok(), "{good}");
    }
    for bad in ["", "x234567890123456", "a b", "a/b", "a:1", ".", "..", "t%s", "t%d%d", "t%", "a\n"] {
        assert!(check_name(bad).is_err(), "{bad}");
    }
}
