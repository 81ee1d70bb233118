//! The rules of the bridge, in the table `ip shipimg`, by nft's JSON (libnftables-json(5)).
//!
//! | chain | rules |
//! |---|---|
//! | `raw` | what containers send to or from 127.0.0.0/8 is dropped: `route_localnet` of the bridge is for the host alone |
//! | `prerouting`, `output` | published ports, each with a comment: the link's name and the port |
//! | `postrouting` | masquerade: what leaves for elsewhere, and what comes back to the bridge by a published port |

use super::super::{Error, Result};
use super::bridge::BRIDGE;
use crate::bundle::network::{self, Publish, Subnet};
use crate::sys::{self, program};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// The table's name.
const TABLE: &str = "shipimg";
/// Chains: name, type, hook, priority.
const CHAINS: [(&str, &str, &str, i32); 4] = [
    ("raw", "filter", "prerouting", -300),
    ("prerouting", "nat", "prerouting", -100),
    ("output", "nat", "output", -100),
    ("postrouting", "nat", "postrouting", 100),
];

/// A rule of a published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The name of the container's link on the host.
    pub veth: String,
    /// The port.
    pub port: Publish,
    chain: String,
    handle: u64,
}

/// The rules of published ports; none where the table, or the part of it that all containers
/// need, is not there.
///
/// # Errors
/// nft is not installed or fails.
pub fn rules() -> Result<Option<Vec<Rule>>> {
    let listed = program::output("nft", &["-j", "list", "table", "ip", TABLE]);
    let failed = match listed {
        Ok(text) => return read(&text),
        Err(e @ sys::Error::Program { .. }) => e,
        Err(e) => return Err(e.into()),
    };
    let tables = parse(&program::output("nft", &["-j", "list", "tables", "ip"])?)?;
    let is_there = objects(&tables).any(|o| o["table"]["name"] == TABLE && o["table"]["family"] == "ip");
    if is_there { Err(failed.into()) } else { Ok(None) }
}

fn read(text: &[u8]) -> Result<Option<Vec<Rule>>> {
    let document = parse(text)?;
    let masquerades = |o: &Value| o["rule"]["chain"] == "postrouting";
    if !objects(&document).any(masquerades) {
        return Ok(None);
    }
    Ok(Some(objects(&document).filter_map(|o| rule(&o["rule"])).collect()))
}

fn parse(text: &[u8]) -> Result<Value> {
    let path = || "the output of nft".into();
    serde_json::from_slice(text).map_err(|source| Error::Config { path: path(), source })
}

fn objects(document: &Value) -> impl Iterator<Item = &Value> {
    document["nftables"].as_array().into_iter().flatten()
}

fn rule(rule: &Value) -> Option<Rule> {
    let (veth, port) = rule["comment"].as_str()?.split_once(' ')?;
    Some(Rule {
        veth: veth.to_string(),
        port: *network::publish(port).ok()?.first()?,
        chain: rule["chain"].as_str()?.to_string(),
        handle: rule["handle"].as_u64()?,
    })
}

/// Makes the table with what all containers need; what it held is gone.
///
/// # Errors
/// nft is not installed or fails.
pub fn make(subnet: Subnet) -> Result<()> {
    let table = json!({"table": {"family": "ip", "name": TABLE}});
    let mut commands = vec![json!({"add": table}), json!({"delete": table}), json!({"add": table})];
    commands.extend(CHAINS.map(|(name, kind, hook, priority)| {
        json!({"add": {"chain": {
            "family": "ip", "table": TABLE, "name": name,
            "type": kind, "hook": hook, "prio": priority, "policy": "accept",
        }}})
    }));
    let bridge = |key: &str, op: &str| matches(op, &json!({"meta": {"key": key}}), BRIDGE);
    let containers = prefix(subnet.base(), subnet.length());
    let localhost = || prefix(Ipv4Addr::new(127, 0, 0, 0), 8);
    let back = json!({"set": [localhost(), containers]});
    commands.extend([
        add("raw", "", &[bridge("iifname", "=="), field("ip", "daddr", localhost()), json!({"drop": null})]),
        add("raw", "", &[bridge("iifname", "=="), field("ip", "saddr", localhost()), json!({"drop": null})]),
        add(
            "postrouting",
            "",
            &[field("ip", "saddr", containers), bridge("oifname", "!="), json!({"masquerade": null})],
        ),
        add(
            "postrouting",
            "",
            &[
                bridge("oifname", "=="),
                matches("in", &json!({"ct": {"key": "status"}}), "dnat"),
                field("ip", "saddr", back),
                json!({"masquerade": null}),
            ],
        ),
    ]);
    apply(&commands)
}

/// Leads `ports` of the host to `address`, and takes the rules `stale` away.
///
/// # Errors
/// nft fails.
pub fn change(veth: &str, address: Ipv4Addr, ports: &[Publish], stale: &[Rule]) -> Result<()> {
    let mut commands: Vec<Value> = stale.iter().map(delete).collect();
    for port in ports {
        commands.extend(["prerouting", "output"].map(|chain| publish(chain, veth, address, port)));
    }
    if commands.is_empty() { Ok(()) } else { apply(&commands) }
}

/// Takes the table away.
///
/// # Errors
/// nft is not installed or fails.
pub fn remove() -> Result<()> {
    let table = json!({"table": {"family": "ip", "name": TABLE}});
    apply(&[json!({"add": table}), json!({"delete": table})])
}

fn delete(rule: &Rule) -> Value {
    json!({"delete": {"rule": {"family": "ip", "table": TABLE, "chain": rule.chain, "handle": rule.handle}}})
}

fn publish(chain: &str, veth: &str, address: Ipv4Addr, port: &Publish) -> Value {
    let local = matches("==", &json!({"fib": {"result": "type", "flags": ["daddr"]}}), "local");
    let mut expression = vec![local];
    if let Some(ip) = port.ip.filter(|ip| !ip.is_unspecified()) {
        expression.push(field("ip", "daddr", ip.to_string()));
    }
    let host = port.host.unwrap_or(port.container);
    expression.push(field(&port.protocol.to_string(), "dport", host));
    expression.push(json!({"dnat": {"addr": address.to_string(), "port": port.container}}));
    add(chain, &format!("{veth} {port}"), &expression)
}

fn add(chain: &str, comment: &str, expression: &[Value]) -> Value {
    let mut rule = json!({"family": "ip", "table": TABLE, "chain": chain, "expr": expression});
    if !comment.is_empty() {
        rule["comment"] = comment.into();
    }
    json!({"add": {"rule": rule}})
}

fn matches(op: &str, left: &Value, right: impl Into<Value>) -> Value {
    let right: Value = right.into();
    json!({"match": {"op": op, "left": left, "right": right}})
}

fn field(protocol: &str, field: &str, right: impl Into<Value>) -> Value {
    matches("==", &json!({"payload": {"protocol": protocol, "field": field}}), right)
}

fn prefix(address: Ipv4Addr, length: u8) -> Value {
    json!({"prefix": {"addr": address.to_string(), "len": length}})
}

fn apply(commands: &[Value]) -> Result<()> {
    let text = json!({"nftables": commands}).to_string();
    program::fed("nft", &["-j", "-f", "-"], text.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_known_again() {
        let port = network::publish("127.0.0.1:8080:80/udp").unwrap()[0];
        let command = publish("output", "ve-web-1a", Ipv4Addr::new(10, 129, 0, 2), &port);
        let mut listed = command["add"].clone();
        listed["rule"]["handle"] = 7.into();
        let base = json!({"rule": {"chain": "postrouting", "handle": 1, "expr": []}});
        let other = json!({"rule": {"chain": "output", "handle": 2, "comment": "by hand", "expr": []}});
        let text = json!({"nftables": [{"metainfo": {}}, base, other, listed]}).to_string();
        let wanted = Rule { veth: "ve-web-1a".into(), port, chain: "output".into(), handle: 7 };
        assert_eq!(read(text.as_bytes()).unwrap(), Some(vec![wanted]));
        assert_eq!(read(br#"{"nftables": []}"#).unwrap(), None);
        assert!(read(b"table ip shipimg {").is_err());
    }
}
