//! `router.yaml`: every key has a default.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::context::{Checker, count, duration, name, size, string, text};
use super::destination;
use crate::config::{Admin, AdminToken, EgressHost, EgressRule, Limits, Role, Server};
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::diag::suggest;
use crate::syntax::Node;

const AUDIT_RETAIN: Duration = Duration::from_secs(400 * 24 * 3600);

impl Checker {
    pub(super) fn server(&mut self, node: Option<&Node>) -> (Option<Server>, destination::Known) {
        let destinations = self.destinations(node.and_then(|node| node.get("destinations")));
        let Some(node) = node else {
            return (Some(self.server_defaults()), destinations);
        };
        let defaults = self.server_defaults();
        let listen = self.address(node, "listen", defaults.listen);
        let public_url = node.get("public_url").map(|url| self.url(url));
        let admin = self.admin(node.get("admin"), &defaults.admin);
        let store = match text(node, "store") {
            None => Some(defaults.store),
            Some(path) if path.text.starts_with("postgres") && path.text.contains("://") => {
                let place = node.get("store").map_or(node.span, |node| node.span);
                self.push(
                    Diagnostic::new(
                        Code::NotBuiltYet,
                        place,
                        "`postgres://` as `store` is part of the language, but this version does not carry it out",
                    )
                    .label("not built yet")
                    .help("write a folder, such as `./data`"),
                );
                None
            }
            Some(path) => Some(self.files.root.join(&path.text)),
        };
        let workers = count(node, "workers").and_then(|count| usize::try_from(count).ok());
        let limits = node
            .get("limits")
            .map_or(Some(defaults.limits.clone()), |node| limits(node, &defaults.limits));
        let mut egress_allow = Vec::new();
        let mut faulty = false;
        let allowed =
            node.get("egress").and_then(|egress| egress.get("allow")).and_then(Node::as_list);
        for entry in allowed.unwrap_or_default() {
            match self.egress_rule(entry) {
                Some(rule) => egress_allow.push(rule),
                None => faulty = true,
            }
        }
        let server = || {
            Some(Server {
                listen: listen?,
                public_url: match public_url {
                    Some(url) => Some(url?),
                    None => None,
                },
                admin: admin?,
                store: store?,
                workers: workers.unwrap_or(defaults.workers),
                limits: limits?,
                egress_allow,
                audit_retain: node
                    .get("audit")
                    .and_then(|audit| duration(audit, "retain"))
                    .unwrap_or(AUDIT_RETAIN),
            })
        };
        (server().filter(|_| !faulty), destinations)
    }

    pub(super) fn server_defaults(&self) -> Server {
        Server {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            public_url: None,
            admin: Admin {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
                tokens: Vec::new(),
            },
            store: self.files.root.join("data"),
            workers: 64,
            limits: Limits {
                connections: 4096,
                backlog: 1_000_000,
                split: 10_000,
                header_timeout: Duration::from_secs(5),
                body_timeout: Duration::from_secs(10),
                min_free_disk_bytes: 512 << 20,
            },
            egress_allow: Vec::new(),
            audit_retain: AUDIT_RETAIN,
        }
    }

    fn address(&mut self, node: &Node, key: &str, default: SocketAddr) -> Option<SocketAddr> {
        let Some(place) = node.get(key) else { return Some(default) };
        let text = place.as_text()?;
        let spelt = match text.text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.text.clone(),
        };
        match spelt.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let help = match spelt
                    .rsplit_once(':')
                    .map_or(spelt.as_str(), |(_, port)| port)
                    .parse::<u16>()
                {
                    Ok(port) => format!(
                        "write an address and a port: `0.0.0.0:{port}` for all, `127.0.0.1:{port}` for this machine"
                    ),
                    Err(_) => {
                        "write an address and a port: `0.0.0.0:8080`, `127.0.0.1:8081`, `[::]:8080`"
                            .to_owned()
                    }
                };
                self.push(
                    Diagnostic::new(
                        Code::InvalidValue,
                        place.span,
                        format!("`{}` is no address to listen on", text.text),
                    )
                    .help(help),
                );
                None
            }
        }
    }

    fn admin(&mut self, node: Option<&Node>, defaults: &Admin) -> Option<Admin> {
        let Some(node) = node else { return Some(defaults.clone()) };
        let listen = self.address(node, "listen", defaults.listen);
        let mut tokens = Vec::new();
        let mut faulty = false;
        let mut places = BTreeMap::new();
        let written = node.get("tokens").and_then(Node::as_list).unwrap_or_default();
        for entry in written {
            if let Some((name, span)) = name(entry, "name")
                && let Some(first) = places.insert(name.clone(), span)
            {
                self.push(
                    Diagnostic::new(
                        Code::DuplicateName,
                        span,
                        format!("a second token is called `{name}`"),
                    )
                    .related(first, "the first is here"),
                );
            }
            match self.admin_token(entry) {
                Some(token) => tokens.push(token),
                None => faulty = true,
            }
        }
        let listen = listen?;
        if !listen.ip().is_loopback() && written.is_empty() {
            let place = node.get("listen").map_or(node.span, |node| node.span);
            self.push(
                Diagnostic::new(Code::PublicAdmin, place, format!("the API on {listen} is open to everyone who reaches it"))
                    .label("no token guards it")
                    .help(format!(
                        "write `127.0.0.1:{}`, or add `tokens: [ {{ name: ops, role: admin, token: {{ env: ROUTER_ADMIN_TOKEN }} }} ]`",
                        listen.port()
                    )),
            );
            return None;
        }
        (!faulty).then_some(Admin { listen, tokens })
    }

    fn admin_token(&mut self, node: &Node) -> Option<AdminToken> {
        let token = self.secret_ref(node.get("token")?);
        let role = match text(node, "role")?.text.as_str() {
            "viewer" => Role::Viewer,
            "operator" => Role::Operator,
            "admin" => Role::Admin,
            _ => return None,
        };
        Some(AdminToken { name: string(node, "name")?, role, token: token? })
    }

    /// `10.0.0.0/8`, `127.0.0.1`, `127.0.0.1:9000`, `[::1]:9000`, `localhost`, `internal.example:443`.
    fn egress_rule(&mut self, node: &Node) -> Option<EgressRule> {
        let text = &node.as_text()?.text;
        let rule = egress_rule(text);
        if rule.is_none() {
            let help = suggest::help(text, ["localhost"]).unwrap_or_else(|| {
                "write `10.0.0.0/8`, `127.0.0.1:9000` or `internal.example:443`".to_owned()
            });
            self.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    node.span,
                    format!("`{text}` is no address, network or host"),
                )
                .help(help),
            );
        }
        rule
    }
}

fn egress_rule(text: &str) -> Option<EgressRule> {
    if let Ok(net) = text.parse::<ipnet::IpNet>() {
        return Some(EgressRule { host: EgressHost::Net(net), port: None });
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(EgressRule { host: EgressHost::Net(ip.into()), port: None });
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(EgressRule {
            host: EgressHost::Net(address.ip().into()),
            port: Some(address.port()),
        });
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (text, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    // A name whose last label is a number is a misspelt address to every resolver.
    let numeric =
        host.rsplit('.').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()));
    (host.split('.').all(label) && !numeric)
        .then(|| EgressRule { host: EgressHost::Name(host.to_ascii_lowercase()), port })
}

fn limits(node: &Node, defaults: &Limits) -> Option<Limits> {
    Some(Limits {
        connections: match node.get("connections") {
            Some(_) => usize::try_from(count(node, "connections")?).ok()?,
            None => defaults.connections,
        },
        backlog: count(node, "backlog").unwrap_or(defaults.backlog),
        split: match node.get("split") {
            Some(_) => usize::try_from(count(node, "split")?).ok()?,
            None => defaults.split,
        },
        header_timeout: duration(node, "header_timeout").unwrap_or(defaults.header_timeout),
        body_timeout: duration(node, "body_timeout").unwrap_or(defaults.body_timeout),
        min_free_disk_bytes: size(node, "min_free_disk")
            .map_or(defaults.min_free_disk_bytes, |bytes| bytes as u64),
    })
}
