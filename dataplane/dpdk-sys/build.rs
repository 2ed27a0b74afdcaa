//! Finds libdpdk, compiles the shim and makes the bindings; does nothing without the feature `dpdk`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "dpdk")]
    dpdk::build();
}

#[cfg(feature = "dpdk")]
mod dpdk {
    use std::path::PathBuf;
    use std::process::Command;

    /// What the bindings are made of: types come along as functions need them.
    const FUNCTIONS: [&str; 10] = [
        "rte_eal_(init|cleanup)",
        "rte_thread_(un)?register",
        "rte_malloc_heap_.*|rte_zmalloc_socket|rte_free",
        "rte_hash_.*",
        "rte_rcu_qsbr_(get_memsize|init|thread_register|thread_unregister)",
        "rte_(strerror|version)",
        "rte_dev_probe|rte_eth_dev_socket_id",
        "rte_eth_xstats_get(_names)?",
        "rte_pktmbuf_pool_create|rte_mempool_(free|avail_count)",
        "uvs_.*",
    ];
    const CONSTANTS: [&str; 3] = ["RTE_HASH_.*", "UVS_.*", "RTE_PKTMBUF_HEADROOM"];

    pub(crate) fn build() {
        println!("cargo::rerun-if-changed=shim/shim.h");
        println!("cargo::rerun-if-changed=shim/shim.c");
        // Also tells Cargo what to link.
        pkg_config::Config::new()
            .atleast_version("22.11")
            .probe("libdpdk")
            .expect("libdpdk 22.11 or later, found by pkg-config (Debian: libdpdk-dev, pkgconf)");
        let flags = flags();
        let mut shim = cc::Build::new();
        shim.file("shim/shim.c").warnings(true);
        for flag in &flags {
            shim.flag(flag);
        }
        shim.compile("uvs_dpdk_shim");

        let mut bindings = bindgen::Builder::default()
            .header("shim/shim.h")
            .clang_args(&flags)
            .rust_edition(bindgen::RustEdition::Edition2024)
            .use_core()
            .wrap_unsafe_ops(true)
            .generate_comments(false)
            .layout_tests(false);
        for function in FUNCTIONS {
            bindings = bindings.allowlist_function(function);
        }
        for constant in CONSTANTS {
            bindings = bindings.allowlist_var(constant);
        }
        let folder = PathBuf::from(std::env::var_os("OUT_DIR").expect("Cargo sets OUT_DIR"));
        bindings
            .generate()
            .expect("bindings of libdpdk's headers (Debian: libclang-dev)")
            .write_to_file(folder.join("bindings.rs"))
            .expect("OUT_DIR can be written");
    }

    /// The compiler's flags, `-include` and `-march` among them, which the pkg-config crate leaves out.
    fn flags() -> Vec<String> {
        let output = Command::new("pkg-config")
            .args(["--cflags", "libdpdk"])
            .output()
            .expect("pkg-config runs");
        let text = String::from_utf8(output.stdout).expect("flags are text");
        text.split_whitespace().map(str::to_owned).collect()
    }
}
