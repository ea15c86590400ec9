//! Which registries the engine was told not to verify.

use serde::Deserialize;

use crate::image::host_of;

/// What `/info` says of registries.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Info {
    registry_config: RegistryConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RegistryConfig {
    #[serde(rename = "InsecureRegistryCIDRs")]
    insecure: Option<Vec<String>>,
    #[serde(rename = "IndexConfigs")]
    indexes: Option<std::collections::BTreeMap<String, Index>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Index {
    #[serde(default = "secure")]
    secure: bool,
}

const fn secure() -> bool {
    true
}

impl Info {
    /// Whether certificates of this registry are not to be verified.
    pub(super) fn is_insecure(&self, domain: &str) -> bool {
        if let Some(index) = self
            .registry_config
            .indexes
            .iter()
            .flatten()
            .find(|(n, _)| *n == domain)
        {
            return !index.1.secure;
        }
        let Ok(address) = host_of(domain).parse::<std::net::IpAddr>() else {
            return false;
        };
        self.registry_config
            .insecure
            .iter()
            .flatten()
            .any(|cidr| in_cidr(cidr, address))
    }
}

fn in_cidr(cidr: &str, address: std::net::IpAddr) -> bool {
    use std::net::IpAddr::{V4, V6};
    let Some((network, bits)) = cidr.split_once('/') else {
        return false;
    };
    let (Ok(network), Ok(bits)) = (network.parse(), bits.parse::<u32>()) else {
        return false;
    };
    match (network, address) {
        (V4(network), V4(address)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (V6(network), V6(address)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_list_decides_what_is_insecure() {
        let info: Info = serde_json::from_str(
            r#"{"RegistryConfig":{"InsecureRegistryCIDRs":["10.0.0.0/8","::1/128"],
                "IndexConfigs":{"reg:5000":{"Secure":false},"docker.io":{"Secure":true}}}}"#,
        )
        .unwrap();
        for (domain, insecure) in [
            ("reg:5000", true),
            ("docker.io", false),
            ("10.1.2.3:5000", true),
            ("11.1.2.3:5000", false),
            ("[::1]:5000", true),
            ("other", false),
        ] {
            assert_eq!(info.is_insecure(domain), insecure, "{domain}");
        }
        let empty: Info =
            serde_json::from_str(r#"{"RegistryConfig":{"InsecureRegistryCIDRs":null}}"#).unwrap();
        assert!(!empty.is_insecure("10.0.0.1"));
    }
}
