//! The virtual YubiKey, judged by clients that nobody here wrote: each has a real session with it,
//! through a real PC/SC daemon.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use signet_tests::lab::cards::{root_pem, ykman};
use signet_tests::lab::command::clean;
use signet_tests::{Cards, Firmware, Output, Run};

const PIN: &str = "123456";
const MANAGEMENT: &str = "010203040506070801020304050607080102030405060708";

fn one(firmware: Firmware) -> Cards {
    Cards::builder().card(firmware, 1001).start()
}

/// A scratch file that goes with the cards.
fn file(cards: &Cards, name: &str) -> PathBuf {
    cards.dir().join(name)
}

fn openssl(arguments: &[&str]) -> Output {
    clean("openssl").args(arguments).run()
}

/// Verifies an attestation against the root of all virtual cards, by way of the card's own
/// certificate.
fn attested(cards: &Cards, attestation: &str, intermediate: &str) {
    let put = |name, text: &str| {
        let path = file(cards, name);
        fs::write(&path, text).expect("the directory is ours");
        path.display().to_string()
    };
    let root = put("root.pem", &root_pem());
    let intermediate = put("f9.pem", intermediate);
    let attestation = put("attestation.pem", attestation);
    openssl(&[
        "verify",
        "-CAfile",
        &root,
        "-untrusted",
        &intermediate,
        &attestation,
    ])
    .ok()
    .says("attestation.pem: OK");
}

/// ykman, Debian's or PyPI's, on the one card.
struct Ykman<'a> {
    cards: &'a Cards,
    program: PathBuf,
    reader: &'a str,
}

impl<'a> Ykman<'a> {
    fn debian(cards: &'a Cards) -> Self {
        let program = "/usr/bin/ykman".into();
        let reader = cards.card(1001).reader();
        Self {
            cards,
            program,
            reader,
        }
    }

    fn current(cards: &'a Cards) -> Self {
        let program = ykman();
        let reader = cards.card(1001).reader();
        Self {
            cards,
            program,
            reader,
        }
    }

    fn command(&self) -> Command {
        let mut command = self.cards.command(&self.program);
        // Its configuration is below HOME.
        command.env("HOME", self.cards.dir());
        // By the reader: among all devices it looks three seconds for a card in the empty one.
        command.args(["--reader", self.reader]);
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command().args(line.split_whitespace()).run()
    }
}

#[test]
fn debians_ykman_generates_certifies_attests_and_changes_the_pin() {
    let cards = one(Firmware::V5_4);
    let ykman = Ykman::debian(&cards);
    ykman
        .run("info")
        .ok()
        .says("Serial number: 1001")
        .says("Firmware version: 5.4.3");
    ykman
        .run("piv info")
        .ok()
        .says("PIV version: 5.4.3")
        .says("PIN tries remaining: 3/3");
    let public = file(&cards, "9c.pem");
    let made = ykman.run(&format!(
        "piv keys generate -m {MANAGEMENT} -a ECCP256 9c {}",
        public.display()
    ));
    made.ok();
    ykman
        .run(&format!(
            "piv certificates generate -m {MANAGEMENT} -P {PIN} -s CN=root 9c {}",
            public.display()
        ))
        .ok();
    let certificate = file(&cards, "9c.crt").display().to_string();
    ykman
        .run(&format!("piv certificates export 9c {certificate}"))
        .ok();
    // Self-signed, so the card's signature is what openssl checks.
    openssl(&["verify", "-CAfile", &certificate, &certificate]).ok();
    let attestation = ykman.run("piv keys attest 9c -").ok().stdout;
    let intermediate = ykman.run("piv certificates export f9 -").ok().stdout;
    attested(&cards, &attestation, &intermediate);
    ykman
        .run(&format!("piv access change-pin -P {PIN} -n 654321"))
        .ok();
    let refused = ykman.run("piv access change-pin -P 111111 -n 654321");
    refused.exits(1).says("2 tries left");
    assert_eq!(cards.card(1001).stats().pin_tries, 2);
    ykman
        .run("piv access change-management-key -m 010203040506070801020304050607080102030405060708 --protect -P 654321")
        .ok();
    ykman
        .run("piv keys generate -P 654321 -a RSA2048 9a -")
        .ok()
        .says("BEGIN PUBLIC KEY");
}

#[test]
fn debians_ykman_meets_every_firmware() {
    for (firmware, version) in [
        (Firmware::V4_3, "4.3.7"),
        (Firmware::V5_2, "5.2.7"),
        (Firmware::V5_7, "5.7.1"),
    ] {
        let cards = one(firmware);
        let ykman = Ykman::debian(&cards);
        ykman
            .run("piv info")
            .ok()
            .says(&format!("PIV version: {version}"));
        if firmware != Firmware::V5_7 {
            let made = ykman.run(&format!(
                "piv keys generate -m {MANAGEMENT} -a ECCP384 9e -"
            ));
            made.ok().says("BEGIN PUBLIC KEY");
        }
    }
}

#[test]
fn todays_ykman_makes_ed25519_moves_deletes_imports_and_resets() {
    let cards = one(Firmware::V5_7);
    let ykman = Ykman::current(&cards);
    ykman
        .run("piv info")
        .ok()
        .says("AES192")
        .says("Using default PIN");
    let public = file(&cards, "9c.pem").display().to_string();
    let made = ykman.run(&format!(
        "piv keys generate -m {MANAGEMENT} -a ED25519 9c {public}"
    ));
    made.ok();
    ykman
        .run(&format!(
            "piv certificates generate -m {MANAGEMENT} -P {PIN} -s CN=ed 9c {public}"
        ))
        .ok();
    let certificate = file(&cards, "9c.crt").display().to_string();
    ykman
        .run(&format!("piv certificates export 9c {certificate}"))
        .ok();
    openssl(&["verify", "-CAfile", &certificate, &certificate]).ok();
    let attestation = ykman.run("piv keys attest 9c -").ok().stdout;
    let intermediate = ykman.run("piv certificates export f9 -").ok().stdout;
    attested(&cards, &attestation, &intermediate);

    ykman
        .run(&format!("piv keys move -m {MANAGEMENT} 9c 82"))
        .ok();
    ykman.run("piv keys info 82").ok().says("ED25519");
    ykman
        .run(&format!("piv keys delete -m {MANAGEMENT} 82"))
        .ok();
    ykman.run("piv keys info 82").exits(1);

    for (kind, options) in [
        (
            "rsa",
            vec!["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        ),
        (
            "p384",
            vec!["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        ),
        ("ed25519", vec!["-algorithm", "ED25519"]),
    ] {
        let path = file(&cards, kind).display().to_string();
        openssl(&[&["genpkey", "-out", &path][..], &options].concat()).ok();
        ykman
            .run(&format!("piv keys import -m {MANAGEMENT} 9a {path}"))
            .ok();
        let public = openssl(&["pkey", "-in", &path, "-pubout"]).ok().stdout;
        let exported = ykman.run("piv keys export 9a -").ok();
        assert_eq!(exported.stdout.trim(), public.trim(), "{kind}");
    }
    let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let changed = ykman.run(&format!(
        "piv access change-management-key -m {MANAGEMENT} -a AES256 -n {key} -f"
    ));
    changed.ok();
    ykman
        .run(&format!("piv keys generate -m {key} -a ECCP256 9d -"))
        .ok();
    ykman
        .run(&format!("piv access set-retries -m {key} -P {PIN} 5 7 -f"))
        .ok();
    ykman.run("piv info").ok().says("5/5").says("7/7");
    ykman.run("piv reset -f").ok();
    ykman.run("piv info").ok().says("3/3").says("AES192");
}

/// yubico-piv-tool knows 3DES management keys only.
fn piv_tool(cards: &Cards, line: &str) -> Output {
    let mut command = cards.command("yubico-piv-tool");
    command.args(line.split_whitespace()).run()
}

#[test]
fn yubicos_tool_provisions_signs_blocks_and_unblocks() {
    let cards = one(Firmware::V5_4);
    let public = file(&cards, "9c.pem").display().to_string();
    let (root, f9) = (file(&cards, "attestation"), file(&cards, "f9"));
    piv_tool(&cards, "-a version").ok().says("5.4.3");
    piv_tool(&cards, &format!("-a generate -s 9c -A ECCP256 -o {public}")).ok();
    piv_tool(&cards, &format!("-a attest -s 9c -o {}", root.display())).ok();
    piv_tool(&cards, &format!("-a read-cert -s f9 -o {}", f9.display())).ok();
    let read = |path: &PathBuf| fs::read_to_string(path).expect("the tool wrote it");
    attested(&cards, &read(&root), &read(&f9));
    piv_tool(&cards, "-a set-chuid -a set-ccc").ok();
    piv_tool(&cards, "-a status")
        .ok()
        .says("PIN tries left:\t3")
        .says("1001");

    let key = file(&cards, "key.pem").display().to_string();
    let certificate = file(&cards, "9a.crt").display().to_string();
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=rsa",
        "-keyout",
        &key,
        "-out",
        &certificate,
    ])
    .ok();
    piv_tool(&cards, &format!("-a import-key -s 9a -i {key}")).ok();
    piv_tool(
        &cards,
        &format!("-a import-certificate -s 9a -i {certificate}"),
    )
    .ok();
    let signed = piv_tool(
        &cards,
        &format!("-a verify-pin -P {PIN} -a test-signature -s 9a -i {certificate}"),
    );
    signed.ok().says("Successful RSA verification");

    let message = file(&cards, "message").display().to_string();
    let signature = file(&cards, "signature").display().to_string();
    fs::write(&message, "signed on a card").expect("the directory is ours");
    let signed = piv_tool(
        &cards,
        &format!(
            "-a verify-pin -P {PIN} --sign -s 9c -A ECCP256 -H SHA256 -i {message} -o {signature}"
        ),
    );
    signed.ok();
    openssl(&[
        "dgst",
        "-sha256",
        "-verify",
        &public,
        "-signature",
        &signature,
        &message,
    ])
    .ok()
    .says("Verified OK");

    for _ in 0..3 {
        assert!(!piv_tool(&cards, "-a verify-pin -P 999999").status.success());
    }
    assert_eq!(cards.card(1001).stats().pin_tries, 0);
    let blocked = piv_tool(&cards, &format!("-a verify-pin -P {PIN}"));
    assert!(
        blocked.text().contains("locked") || blocked.text().contains("blocked"),
        "{blocked:?}"
    );
    piv_tool(&cards, "-a unblock-pin -P 12345678 -N 424242").ok();
    piv_tool(&cards, "-a verify-pin -P 424242").ok();
    piv_tool(
        &cards,
        "-a verify-pin -P 424242 -a pin-retries --pin-retries 6 --puk-retries 4",
    )
    .ok();
    let stats = cards.card(1001).stats();
    assert_eq!((stats.pin_tries, stats.puk_tries), (6, 4));
    let new = "a1a2a3a4a5a6a7a8b1b2b3b4b5b6b7b8c1c2c3c4c5c6c7c8";
    piv_tool(&cards, &format!("-a set-mgm-key -n {new}")).ok();
    assert!(
        !piv_tool(&cards, "-a generate -s 9d -A ECCP256 -o /dev/null")
            .status
            .success()
    );
    piv_tool(
        &cards,
        &format!("-k{new} -a generate -s 9d -A ECCP384 -o /dev/null"),
    )
    .ok();
}

/// pkcs11-tool with a module.
fn pkcs11(cards: &Cards, module: &str, line: &str) -> Output {
    let mut command = cards.command("pkcs11-tool");
    command.args(["--module", module]);
    command.args(line.split_whitespace()).run()
}

/// A key and its certificate, by Debian's ykman.
fn certified(cards: &Cards, slot: &str, algorithm: &str) -> String {
    let ykman = Ykman::debian(cards);
    let public = file(cards, &format!("{slot}.pem")).display().to_string();
    let made = ykman.run(&format!(
        "piv keys generate -m {MANAGEMENT} -a {algorithm} {slot} {public}"
    ));
    made.ok();
    ykman
        .run(&format!(
            "piv certificates generate -m {MANAGEMENT} -P {PIN} -s CN=root {slot} {public}"
        ))
        .ok();
    public
}

fn signs_through(cards: &Cards, module: &str, id: &str, login: &str, public: &str) {
    let message = file(cards, "message").display().to_string();
    let signature = file(cards, "signature").display().to_string();
    fs::write(&message, "signed through PKCS#11").expect("the directory is ours");
    let signed = pkcs11(
        cards,
        module,
        &format!(
            "{login} --pin {PIN} --sign --id {id} --mechanism ECDSA-SHA256 \
             --signature-format openssl --input-file {message} --output-file {signature}"
        ),
    );
    signed.ok();
    openssl(&[
        "dgst",
        "-sha256",
        "-verify",
        public,
        "-signature",
        &signature,
        &message,
    ])
    .ok()
    .says("Verified OK");
}

#[test]
fn libykcs11_lists_signs_and_passes_its_own_test() {
    let cards = one(Firmware::V5_4);
    let module = &find("libykcs11.so.2");
    let public = certified(&cards, "9a", "ECCP256");
    pkcs11(&cards, module, "--list-slots")
        .ok()
        .says("serial num         : 1001");
    pkcs11(&cards, module, "--list-objects")
        .ok()
        .says("X.509 Certificate for PIV Auth");
    signs_through(&cards, module, "01", "--login", &public);
    let rsa = certified(&cards, "9d", "RSA2048");
    assert!(rsa.ends_with("9d.pem"));
    let tested = pkcs11(&cards, module, &format!("--login --pin {PIN} --test"));
    tested.ok().says("No errors");
}

#[test]
fn openscs_module_finds_the_key_and_signs() {
    let cards = one(Firmware::V5_4);
    let module = &find("opensc-pkcs11.so");
    let public = certified(&cards, "9a", "ECCP256");
    cards
        .command("opensc-tool")
        .args(["--name"])
        .run()
        .ok()
        .says("Personal Identity Verification");
    cards
        .command("opensc-tool")
        .args(["--atr"])
        .run()
        .ok()
        .says("3b:fd:13:00:00:81:31:fe");
    pkcs11(&cards, module, "--list-objects --type cert")
        .ok()
        .says("Certificate for PIV Authentication");
    signs_through(&cards, module, "01", "--login", &public);
}

/// A library, in whichever directory this architecture has it.
fn find(library: &str) -> String {
    let libraries = fs::read_dir("/usr/lib").expect("there is a /usr/lib");
    let mut paths = libraries.flatten().map(|dir| dir.path().join(library));
    let found = paths.find(|path| path.exists());
    let found = found.unwrap_or_else(|| panic!("no {library}; tests/lab/install.sh installs it"));
    found.display().to_string()
}
