//! Logging in: Basic (RFC 7617), and Bearer tokens from a token server (distribution's
//! "token authentication specification", and its `OAuth2` variant for identity tokens).
//!
//! Credentials are looked up when a registry asks for them, not before.
//!
//! Which realm gets them: one on the registry's own host; or, both over https, one on the
//! registry's site, which is the host's last two labels, three where the last two look
//! like a public suffix (`co.uk`: two letters below at most three). So auth.docker.io for
//! docker.io and gitlab.example.org for registry.example.org work, and one that a
//! tampered answer names elsewhere gets nothing. Another realm is asked anonymously.

use super::client::{Answer, Client, host_port, is_local};
use super::connection::is_read;
use super::{Credentials, Error, Result, credentials};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// The most that a token answer may hold, in bytes.
const TOKEN_LIMIT: u64 = 1 << 20;

/// The state of being logged in to one repository.
#[derive(Debug)]
pub(super) struct Auth {
    registry: String,
    repository: String,
    given: Option<Credentials>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    authorization: Option<HeaderValue>,
    /// What the token is good for, so that the next one is good for that and more.
    scopes: BTreeSet<String>,
    withheld: Option<String>,
}

impl Auth {
    pub(super) fn new(registry: &str, repository: &str, given: Option<Credentials>) -> Self {
        let (registry, repository) = (registry.to_string(), repository.to_string());
        Self { registry, repository, given, state: Mutex::default() }
    }

    /// The Authorization header as far as known.
    pub(super) fn current(&self) -> Option<HeaderValue> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).authorization.clone()
    }

    /// What access is wanted to: the repository, or the registry where there is none.
    pub(super) fn wanted(&self) -> &str {
        if self.repository.is_empty() { &self.registry } else { &self.repository }
    }

    /// The realm's host that did not get the credentials.
    pub(super) fn withheld(&self) -> Option<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).withheld.clone()
    }

    /// A new Authorization header after the 401 of `answer` to a request with `used`; `None`
    /// where there is nothing to try. One thread logs in, the others wait and share.
    pub(super) fn renew(
        &self,
        client: &Client,
        base: &Url,
        method: &Method,
        answer: &Answer,
        used: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.authorization.is_some() && state.authorization.as_ref() != used {
            return Ok(state.authorization.clone());
        }
        let offers: Vec<Challenge> = answer.headers("www-authenticate").flat_map(parse).collect();
        let bearer = offers.iter().find(|c| c.scheme == "bearer");
        let renewed = match (bearer, offers.iter().any(|c| c.scheme == "basic")) {
            (Some(challenge), _) => {
                let realm = self.realm(base, challenge)?;
                let known = self.credentials()?;
                let known = if may_have_credentials(base, &realm) {
                    known
                } else {
                    state.withheld = known.map(|_| host_port(&realm));
                    None
                };
                let scopes = state.scopes.union(&self.scopes(challenge, method)).cloned().collect();
                let token = self.token(client, realm, challenge, &scopes, known.as_ref())?;
                state.scopes = scopes;
                Some(token)
            }
            (None, true) => match self.credentials()? {
                Some(Credentials::Password { user, password }) => Some(basic(base, &user, &password)?),
                _ => None,
            },
            (None, false) => None,
        };
        if renewed.is_some() && renewed.as_ref() == used {
            return Ok(None);
        }
        state.authorization.clone_from(&renewed);
        Ok(renewed)
    }

    fn credentials(&self) -> Result<Option<Credentials>> {
        match &self.given {
            Some(given) => Ok(Some(given.clone())),
            None => credentials::find(&self.registry, &self.repository),
        }
    }

    /// What a token is wanted for: what the challenge says, else what `method` does.
    fn scopes(&self, challenge: &Challenge, method: &Method) -> BTreeSet<String> {
        match challenge.get("scope") {
            Some(scopes) => scopes.split_ascii_whitespace().map(str::to_string).collect(),
            None if self.repository.is_empty() => BTreeSet::new(),
            None => {
                let actions = match method {
                    &Method::DELETE => "delete",
                    m if is_read(m) => "pull",
                    _ => "pull,push",
                };
                BTreeSet::from([format!("repository:{}:{actions}", self.repository)])
            }
        }
    }

    fn realm(&self, base: &Url, challenge: &Challenge) -> Result<Url> {
        let fail = |reason| Error::Token { host: self.registry.clone(), reason };
        let realm: Url = challenge
            .get("realm")
            .and_then(|r| r.parse().ok())
            .ok_or_else(|| fail("its challenge has no usable realm"))?;
        let plain = base.scheme() == "http" && realm.scheme() == "http";
        let allowed = realm.scheme() == "https" || plain && (is_local(&realm) || same_host(base, &realm));
        if allowed { Ok(realm) } else { Err(fail("its token server is not on https")) }
    }

    fn token(
        &self,
        client: &Client,
        mut realm: Url,
        challenge: &Challenge,
        scopes: &BTreeSet<String>,
        credentials: Option<&Credentials>,
    ) -> Result<HeaderValue> {
        let mut fields: Vec<_> = challenge.get("service").map(|s| ("service", s)).into_iter().collect();
        let shown = realm.clone();
        let request = if let Some(Credentials::IdentityToken(token)) = credentials {
            let scope = &scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
            fields.extend([
                ("scope", scope.as_str()),
                ("grant_type", "refresh_token"),
                ("client_id", "shipimg"),
                ("refresh_token", token.as_str()),
            ]);
            let mut form = realm.clone();
            form.query_pairs_mut().clear().extend_pairs(fields);
            let body = form.query().unwrap_or_default().to_string();
            let request = client.request(Method::POST, &realm)?;
            request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
        } else {
            fields.extend(scopes.iter().map(|s| ("scope", s.as_str())));
            realm.query_pairs_mut().extend_pairs(fields);
            let request = client.request(Method::GET, &realm)?;
            match credentials {
                Some(Credentials::Password { user, password }) => {
                    request.header(AUTHORIZATION, basic(&shown, user, password)?)
                }
                _ => request,
            }
        };
        let answer = client.send(&shown, request)?;
        let host = host_port(&shown);
        if !answer.status().is_success() {
            return Err(match answer.into_status_error() {
                Error::Status { host, status, message, .. } if matches!(status.as_u16(), 400 | 401 | 403) => {
                    let (repository, withheld) = (self.wanted().to_string(), None);
                    Error::Unauthorized { host, repository, status, message, withheld }
                }
                other => other,
            });
        }
        let body = answer.read_all(TOKEN_LIMIT, "a token")?;
        read_token(&body).ok_or(Error::Token { host, reason: "the token server's answer has no token" })
    }
}

fn read_token(body: &[u8]) -> Option<HeaderValue> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let token = ["token", "access_token"].iter().find_map(|k| json[*k].as_str().filter(|t| !t.is_empty()))?;
    secret(format!("Bearer {token}"))
}

fn basic(host: &Url, user: &str, password: &str) -> Result<HeaderValue> {
    secret(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
        .ok_or_else(|| Error::Token { host: host_port(host), reason: "the credentials cannot be sent" })
}

fn secret(value: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A challenge of one scheme, taken apart.
struct Challenge {
    scheme: String,
    params: Vec<(String, String)>,
}

impl Challenge {
    fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

/// The challenges of one header; none where it is malformed.
fn parse(header: &str) -> Vec<Challenge> {
    let parsed = http_auth::parse_challenges(header).unwrap_or_default();
    let own = |c: http_auth::ChallengeRef<'_>| Challenge {
        scheme: c.scheme.to_ascii_lowercase(),
        params: c.params.iter().map(|(k, v)| (k.to_ascii_lowercase(), v.to_unescaped())).collect(),
    };
    parsed.into_iter().map(own).collect()
}

fn same_host(a: &Url, b: &Url) -> bool {
    a.host_str().is_some() && a.host_str() == b.host_str()
}

fn may_have_credentials(registry: &Url, realm: &Url) -> bool {
    let both_https = registry.scheme() == "https" && realm.scheme() == "https";
    same_host(registry, realm) || both_https && site(registry).is_some() && site(registry) == site(realm)
}

/// The part of a host name that one owner holds; `None` for addresses and single labels.
fn site(url: &Url) -> Option<&str> {
    let host = url.domain()?;
    let labels: Vec<&str> = host.split('.').collect();
    let suffix_like = match labels[..] {
        [.., second, top] => top.len() == 2 && second.len() <= 3,
        _ => return None,
    };
    let wanted = if suffix_like { 3 } else { 2 };
    let first = labels.len().checked_sub(wanted)?;
    let skip: usize = labels[..first].iter().map(|l| l.len() + 1).sum();
    Some(&host[skip..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn realms_that_get_credentials() {
        for (registry, realm, allowed) in [
            ("https://registry-1.docker.io", "https://auth.docker.io/token", true),
            ("https://ghcr.io", "https://ghcr.io/token", true),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", true),
            ("https://registry.example.org:5050", "https://gitlab.example.org/jwt/auth", true),
            ("https://a.example.co.uk", "https://b.example.co.uk/", true),
            ("https://a.co.uk", "https://b.co.uk/", false),
            ("https://registry.example.org", "https://example.org.evil.net/", false),
            ("https://registry.example.org", "https://notexample.org/", false),
            ("https://10.0.0.1", "https://10.0.0.2/", false),
            ("http://localhost:5000", "http://localhost:5001/auth", true),
            ("http://localhost:5000", "http://127.0.0.1:5001/auth", false),
            ("http://localhost:5000", "https://auth.example.org/", false),
            ("https://registry.example.org", "https://registry.example.org@evil.net/", false),
        ] {
            let (a, b) = (Url::parse(registry).unwrap(), Url::parse(realm).unwrap());
            assert_eq!(may_have_credentials(&a, &b), allowed, "{registry} {realm}");
        }
    }

    #[test]
    fn realms_over_plain_http() {
        let auth = Auth::new("r", "x", None);
        for (registry, realm, allowed) in [
            ("https://r.example", "http://r.example/token", false),
            ("https://r.example", "https://elsewhere.example/token", true),
            ("http://localhost:1", "http://localhost:2/", true),
            ("http://localhost:1", "http://elsewhere.example/", false),
            ("https://r.example", "file:///etc/passwd", false),
            ("https://r.example", "", false),
        ] {
            let challenge = parse(&format!("Bearer realm=\"{realm}\",service=\"s\"")).remove(0);
            assert_eq!(auth.realm(&registry.parse().unwrap(), &challenge).is_ok(), allowed, "{realm}");
        }
    }

    #[test]
    fn challenges_and_tokens() {
        let c = parse(
            r#"Bearer realm="https://a/t",service="s",scope="repository:x:pull,push", Basic realm="b""#,
        );
        assert_eq!(c.iter().map(|c| c.scheme.as_str()).collect::<Vec<_>>(), ["bearer", "basic"]);
        assert_eq!(c[0].get("scope"), Some("repository:x:pull,push"));
        assert!(parse("Bearer realm=\"open").is_empty());
        let token = |b: &str| read_token(b.as_bytes()).map(|v| v.to_str().unwrap().to_string());
        assert_eq!(token(r#"{"token":"","access_token":"T"}"#).unwrap(), "Bearer T");
        for bad in ["", "[]", "{}", r#"{"token":"a\nb"}"#, r#"{"token":7}"#] {
            assert_eq!(token(bad), None, "{bad}");
        }
    }
}
