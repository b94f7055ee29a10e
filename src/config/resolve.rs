//! References → values: reads the environment and the secrets' files once, before a port is bound.

use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::config::{Auth, Resolved, RouteSet};
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::secret::{SecretRef, SecretValue};

/// Where secrets and variables come from.
pub trait Environment {
    fn var(&self, name: &str) -> Option<String>;
    fn read(&self, path: &Path) -> io::Result<String>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process;

impl Environment for Process {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// Reads what `set` names. Each variable that is not set and each file that cannot be read is a diagnostic at the place
/// of its reference; no message holds a value.
pub fn resolve(set: &RouteSet, environment: &dyn Environment) -> (Resolved, Vec<Diagnostic>) {
    let mut resolved = Resolved::default();
    let mut diagnostics = Vec::new();
    for (reference, span) in &set.references.secrets {
        match value_of(reference, environment) {
            Ok(value) => resolved.vault.insert(reference.clone(), SecretValue::new(value)),
            Err((code, message, help)) => {
                diagnostics.push(Diagnostic::new(code, *span, message).help(help));
            }
        }
    }
    for source in set.sources.values() {
        let value = |secret: &SecretRef| resolved.secret(secret).map(SecretValue::expose);
        for (secret, why) in source.verify.scheme.unusable(value) {
            let Some(span) = set.references.secrets.get(secret) else { continue };
            diagnostics.push(
                Diagnostic::new(
                    Code::UnreadableSecret,
                    *span,
                    format!("this secret cannot verify the source `{}`: {why}", source.name),
                )
                .help("give it exactly as the provider shows it"),
            );
        }
    }
    for (variable, span) in &set.references.variables {
        match environment.var(variable) {
            Some(value) => {
                resolved.env.insert(variable.clone(), value);
            }
            None => diagnostics.push(
                Diagnostic::new(
                    Code::UnsetVariable,
                    *span,
                    format!("the variable `{variable}` is not set"),
                )
                .help("set it, or give it a `default`"),
            ),
        }
    }
    for variable in &set.references.optional_variables {
        if let Some(value) = environment.var(variable) {
            resolved.env.insert(variable.clone(), value);
        }
    }
    hide_basic(set, &mut resolved);
    diagnostics.sort_by_key(|found| (found.span.file, found.span.start));
    (resolved, diagnostics)
}

/// A downstream that repeats what it was sent repeats a password in its base64 form.
fn hide_basic(set: &RouteSet, resolved: &mut Resolved) {
    for destination in set.destinations.values() {
        if let Some(Auth::Basic { user, password }) = &destination.auth
            && let Some(value) = resolved.vault.get(password)
        {
            let form = BASE64.encode(format!("{user}:{}", value.expose()));
            resolved.vault.insert_form(SecretValue::new(form));
        }
    }
}

fn value_of(
    reference: &SecretRef,
    environment: &dyn Environment,
) -> Result<String, (Code, String, String)> {
    match reference {
        SecretRef::Literal(text) => Ok(text.to_string()),
        SecretRef::Env(name) => match environment.var(name) {
            Some(value) if !value.trim().is_empty() => Ok(value),
            Some(_) => Err((
                Code::UnsetVariable,
                format!("the variable `{name}` is empty"),
                "set it to the secret".to_owned(),
            )),
            None => Err((
                Code::UnsetVariable,
                format!("the variable `{name}` is not set"),
                format!("set it before the start: `export {name}=…`"),
            )),
        },
        SecretRef::File(path) => match environment.read(path) {
            Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
            Ok(_) => Err((
                Code::UnreadableSecret,
                format!("the file `{}` is empty", path.display()),
                "put the secret in it".to_owned(),
            )),
            Err(error) => Err((
                Code::UnreadableSecret,
                format!("cannot read `{}`: {error}", path.display()),
                "the path is relative to the file that names it".to_owned(),
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::check::load;
    use crate::files::Files;

    struct Fake(BTreeMap<&'static str, &'static str>);

    impl Environment for Fake {
        fn var(&self, name: &str) -> Option<String> {
            self.0.get(name).map(|value| (*value).to_owned())
        }

        fn read(&self, path: &Path) -> io::Result<String> {
            self.var(&path.to_string_lossy()).ok_or_else(|| io::ErrorKind::NotFound.into())
        }
    }

    const ROUTE: &str = "
route: r
source: { path: /r, verify: { token: { bearer: true }, secret: [ { env: ONE }, { file: ../two } ] }, event: { id: $.id } }
env: { region: REGION, size: { env: SIZE, default: small } }
steps: [ { name: s, call: { get: https://a.example/ } } ]
";

    fn check(environment: &[(&'static str, &'static str)], expected: &[&str]) -> Resolved {
        let mut files = Files::new("/c");
        files.add("routes/r.yaml", ROUTE);
        let loaded = load(files);
        let set = loaded.set.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
        let (resolved, found) = resolve(&set, &Fake(environment.iter().copied().collect()));
        let found: Vec<String> = found
            .iter()
            .map(|it| {
                let text = &loaded.files.get(it.span.file).text;
                format!(
                    "{} {} | {}",
                    it.code.as_str(),
                    it.message,
                    text.get(it.span.range()).unwrap_or_default()
                )
            })
            .collect();
        assert_eq!(found, expected);
        resolved
    }

    #[test]
    fn what_is_missing_is_reported_where_it_is_named() {
        check(
            &[("ONE", " ")],
            &[
                "R040 the variable `ONE` is empty | { env: ONE }",
                "R041 cannot read `/c/routes/../two`: entity not found | { file: ../two }",
                "R040 the variable `REGION` is not set | REGION",
            ],
        );
    }

    #[test]
    fn a_secret_that_can_never_verify_is_refused() {
        fn check(provider: &str, value: &'static str, expected: &[&str]) {
            let mut files = Files::new("/c");
            files.add("routes/r.yaml", ROUTE_OF.replace("PROVIDER", provider));
            let set = load(files).set.unwrap();
            let (_, found) = resolve(&set, &Fake([("KEY", value)].into()));
            let found: Vec<_> = found.iter().map(|it| it.message.as_str()).collect();
            assert_eq!(found, expected);
        }
        const ROUTE_OF: &str = "
route: r
source: { path: /r, verify: { provider: PROVIDER, secret: { env: KEY } } }
steps: [ { name: s, call: { get: https://a.example/ } } ]
";
        check("svix", "whsec_c2VjcmV0", &[]);
        check("svix", "s3cret!", &["this secret cannot verify the source `r`: it is not base64"]);
        // GitLab's older way takes any text.
        check("gitlab", "s3cret!", &[]);
    }

    #[test]
    fn files_are_trimmed_and_defaults_need_no_variable() {
        let resolved = check(&[("ONE", "1"), ("/c/routes/../two", " 2\n"), ("REGION", "eu")], &[]);
        let secret = |it: SecretRef| resolved.secret(&it).unwrap().expose().to_owned();
        assert_eq!(secret(SecretRef::Env("ONE".to_owned())), "1");
        assert_eq!(secret(SecretRef::File("/c/routes/../two".into())), "2");
        assert_eq!(resolved.env.get("REGION").map(String::as_str), Some("eu"));
        assert_eq!(resolved.env.get("SIZE"), None);
    }

    #[test]
    fn the_base64_of_a_basic_password_is_as_secret_as_it() {
        let mut files = Files::new("/c");
        let server = "destinations: { d: { url: https://a.example, auth: { basic: { user: me, password: { env: PW } } } } }\n";
        files.add("router.yaml", server);
        files.add("routes/r.yaml", "route: r\nsource: { path: /r, verify: { none: test }, event: { id: $.id } }\nsteps: [ { name: s, call: { to: d, post: / } } ]\n");
        let loaded = load(files);
        let set = loaded.set.expect("it is clean");
        let (resolved, _) = resolve(&set, &Fake(BTreeMap::from([("PW", "hunter2")])));
        let hidden: Vec<&str> = resolved.vault.values().map(SecretValue::expose).collect();
        assert_eq!(hidden, ["bWU6aHVudGVyMg==", "hunter2"]);
    }
}
