//! The server of moto: a stand-in for the AWS APIs that the daemon uses, with state set by the
//! test.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::process::Process;
use crate::{http, tools, wait};

/// A running moto server. Killed on drop.
#[derive(Debug)]
pub struct Moto {
    address: SocketAddr,
    _process: Process,
}

impl Moto {
    /// Starts a server on a free port. Returns `None` if moto is not installed; the skip is
    /// printed.
    ///
    /// # Errors
    /// If it does not answer in time.
    pub fn start() -> anyhow::Result<Option<Self>> {
        Self::start_at(Ipv4Addr::LOCALHOST.into())
    }

    /// Like [`Moto::start`], on another address of this machine. Ends with the calling thread.
    ///
    /// # Errors
    /// If it does not answer in time.
    pub fn start_at(ip: IpAddr) -> anyhow::Result<Option<Self>> {
        let Some(program) = tools::find_program("moto_server") else { return Ok(None) };
        // moto needs a port number. This one was free a moment ago.
        let address = TcpListener::bind((ip, 0))?.local_addr()?;
        let (host, port) = (ip.to_string(), address.port().to_string());
        let process = Process::start_tied_to_thread(Command::new(program).args(["-H", &host, "-p", &port]))?;
        wait::until("moto to answer", || http::get(address, "/moto-api/").ok()).context("moto_server")?;
        Ok(Some(Self { address, _process: process }))
    }

    /// Address of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Environment that makes the AWS SDK use this server, with credentials that are valid nowhere
    /// else.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", "testing".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "testing".to_owned()),
        ]
    }

    /// Calls an EC2 action of the query protocol, and returns the XML of the response.
    ///
    /// # Errors
    /// If it is refused.
    pub fn ec2(&self, action: &str, parameters: &[(&str, &str)]) -> anyhow::Result<String> {
        let mut body = format!("Action={action}&Version=2016-11-15");
        for (name, value) in parameters {
            body.push_str(&format!("&{name}={}", value.replace(':', "%3A")));
        }
        // moto reads the region from the signature and does not verify it.
        let scope = "AWS4-HMAC-SHA256 Credential=testing/20260101/eu-central-1/ec2/aws4_request, SignedHeaders=host, Signature=0";
        let headers = [("authorization", scope), ("content-type", "application/x-www-form-urlencoded")];
        let response = http::request(self.address, "POST", "/", &headers, body.as_bytes())?;
        ensure!(response.status == 200, "{action}: {} {}", response.status, response.text());
        Ok(response.text())
    }

    /// Calls a CloudWatch action of the query protocol, and returns the XML of the response.
    ///
    /// # Errors
    /// If it is refused.
    pub fn cloudwatch(&self, action: &str, parameters: &[(&str, &str)]) -> anyhow::Result<String> {
        let mut body = format!("Action={action}&Version=2010-08-01");
        for (name, value) in parameters {
            body.push_str(&format!("&{name}={}", value.replace(':', "%3A")));
        }
        let scope = "AWS4-HMAC-SHA256 Credential=testing/20260101/eu-central-1/monitoring/aws4_request, SignedHeaders=host, Signature=0";
        let headers = [("authorization", scope), ("content-type", "application/x-www-form-urlencoded")];
        let response = http::request(self.address, "POST", "/", &headers, body.as_bytes())?;
        ensure!(response.status == 200, "{action}: {} {}", response.status, response.text());
        Ok(response.text())
    }

    /// Stores a secret in Secrets Manager.
    ///
    /// # Errors
    /// If it is refused.
    pub fn create_secret(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let body = serde_json::json!({ "Name": name, "SecretString": text, "ClientRequestToken": "0".repeat(32) });
        self.call_secrets_manager("CreateSecret", &body)
    }

    fn call_secrets_manager(&self, action: &str, body: &serde_json::Value) -> anyhow::Result<()> {
        let target = format!("secretsmanager.{action}");
        let scope = "AWS4-HMAC-SHA256 Credential=testing/20260101/eu-central-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=0";
        let headers = [
            ("authorization", scope),
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", target.as_str()),
        ];
        let response = http::request(self.address, "POST", "/", &headers, body.to_string().as_bytes())?;
        ensure!(response.status == 200, "{action}: {} {}", response.status, response.text());
        Ok(())
    }

    /// Replaces the text of a secret.
    ///
    /// # Errors
    /// If it is refused.
    pub fn put_secret(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let body = serde_json::json!({ "SecretId": name, "SecretString": text, "ClientRequestToken": "1".repeat(32) });
        self.call_secrets_manager("PutSecretValue", &body)
    }

    /// Runs an instance with these tags, and returns its id and private address.
    ///
    /// # Errors
    /// If it is refused.
    pub fn run_instance(&self, tags: &[(&str, &str)]) -> anyhow::Result<(String, String)> {
        self.run_instances(tags, &[])
    }

    /// Creates a VPC and a subnet with this address range (`127.0.0.0/24`), and returns the subnet
    /// id for [`Moto::run_instance_at`].
    ///
    /// # Errors
    /// If it is refused.
    pub fn create_subnet(&self, range: &str) -> anyhow::Result<String> {
        let vpc = self.ec2("CreateVpc", &[("CidrBlock", range)])?;
        let vpc = xml_element(&vpc, "vpcId").context("no vpcId")?;
        let subnet = self.ec2("CreateSubnet", &[("VpcId", vpc), ("CidrBlock", range)])?;
        xml_element(&subnet, "subnetId").map(str::to_owned).context("no subnetId")
    }

    /// Runs an instance with these tags at an address of a subnet, and returns its id.
    ///
    /// # Errors
    /// If it is refused.
    pub fn run_instance_at(&self, subnet: &str, address: &str, tags: &[(&str, &str)]) -> anyhow::Result<String> {
        Ok(self.run_instances(tags, &[("SubnetId", subnet), ("PrivateIpAddress", address)])?.0)
    }

    fn run_instances(
        &self,
        tags: &[(&str, &str)],
        extra_parameters: &[(&str, &str)],
    ) -> anyhow::Result<(String, String)> {
        let names: Vec<_> = (1..=tags.len()).map(|n| format!("TagSpecification.1.Tag.{n}")).collect();
        let names: Vec<_> = names.iter().map(|n| (format!("{n}.Key"), format!("{n}.Value"))).collect();
        let mut parameters = vec![
            ("ImageId", "ami-12c6146b"),
            ("MinCount", "1"),
            ("MaxCount", "1"),
            ("TagSpecification.1.ResourceType", "instance"),
        ];
        for ((key, value), (tag, text)) in names.iter().zip(tags) {
            parameters.extend([(key.as_str(), *tag), (value.as_str(), *text)]);
        }
        parameters.extend(extra_parameters);
        let xml = self.ec2("RunInstances", &parameters)?;
        let text = |name: &str| xml_element(&xml, name).map(str::to_owned).with_context(|| format!("no {name}: {xml}"));
        Ok((text("instanceId")?, text("privateIpAddress")?))
    }
}

/// Text of the first element with this name.
fn xml_element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let start = xml.find(&format!("<{name}>"))? + name.len() + 2;
    Some(&xml[start..start + xml[start..].find(&format!("</{name}>"))?])
}
