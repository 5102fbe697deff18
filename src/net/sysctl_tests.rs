use super::super::namespace::run;
use super::*;

fn rp_filter(device: &str) -> String {
    get(Family::V4, device, "rp_filter").unwrap()
}

#[test]
fn set_and_restored() {
    run(|bench| async move {
        let (_card, _) = bench.card("wan0.5").await;
        fs::write("/proc/sys/net/ipv4/conf/wan0.5/rp_filter", "1").unwrap();
        let mut sysctls = Sysctls::new();
        sysctls.relax_rp_filter("wan0.5").unwrap();
        assert_eq!(rp_filter("wan0.5"), "2");
        sysctls.set(Family::V4, "wan0.5", "src_valid_mark", "1").unwrap();
        assert_eq!(sysctls.changes().count(), 2);
        sysctls.restore().unwrap();
        assert_eq!(rp_filter("wan0.5"), "1");
        assert_eq!(get(Family::V4, "wan0.5", "src_valid_mark").unwrap(), "0");
        assert_eq!(sysctls.changes().count(), 0);
    });
}

#[test]
fn strict_for_all_is_answered_too() {
    run(|bench| async move {
        let (_card, _) = bench.card("wan0").await;
        fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").unwrap();
        fs::write("/proc/sys/net/ipv4/conf/wan0/rp_filter", "0").unwrap();
        let mut sysctls = Sysctls::new();
        sysctls.relax_rp_filter("wan0").unwrap();
        assert_eq!(rp_filter("wan0"), "0");
        fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
        sysctls.relax_rp_filter("wan0").unwrap();
        assert_eq!((rp_filter("wan0").as_str(), rp_filter("all").as_str()), ("2", "1"));
    });
}

#[test]
fn old_values_survive_a_crash_and_others_changes_stay() {
    run(|bench| async move {
        let (_card, _) = bench.card("wan0").await;
        let (gone, _) = bench.card("wan1").await;
        let file = std::env::temp_dir().join(format!("bonding-sysctl-test-{}", std::process::id()));
        let _ = fs::remove_file(&file);
        for device in ["wan0", "wan1"] {
            fs::write(format!("/proc/sys/net/ipv4/conf/{device}/rp_filter"), "1").unwrap();
        }
        let mut sysctls = Sysctls::with_file(file.clone()).unwrap();
        sysctls.relax_rp_filter("wan0").unwrap();
        sysctls.relax_rp_filter("wan1").unwrap();
        sysctls.set(Family::V4, "wan0", "src_valid_mark", "1").unwrap();
        drop(sysctls); // as by kill -9
        drop(gone);
        fs::write("/proc/sys/net/ipv4/conf/wan0/src_valid_mark", "0").unwrap();
        fs::write("/proc/sys/net/ipv4/conf/wan0/src_valid_mark", "2").unwrap();

        let mut sysctls = Sysctls::with_file(file.clone()).unwrap();
        sysctls.relax_rp_filter("wan0").unwrap(); // no change, and the value remembered is still the first one
        sysctls.restore().unwrap();
        assert_eq!(rp_filter("wan0"), "1");
        assert_eq!(get(Family::V4, "wan0", "src_valid_mark").unwrap(), "2", "somebody else's value");
        assert!(!file.exists());
    });
}

#[test]
fn names_do_not_lead_out() {
    let mut sysctls = Sysctls::new();
    for bad in ["", ".", "..", "a/b", "../../../etc"] {
        assert!(matches!(sysctls.set(Family::V4, bad, "rp_filter", "0"), Err(SysctlError::Name(_))), "{bad}");
        assert!(matches!(sysctls.set(Family::V4, "lo", bad, "0"), Err(SysctlError::Name(_))), "{bad}");
    }
    assert!(matches!(get(Family::V4, "nothing0", "rp_filter"), Err(SysctlError::Io { .. })));
}
