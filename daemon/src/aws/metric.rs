//! Sends one number to CloudWatch: PutMetricData of the query protocol, signed with `aws-sigv4`.
//! The SDK's CloudWatch crate is as large as all other SDK crates of this daemon except EC2's
//! together, and this is one request.
//!
//! CloudWatch API reference, PutMetricData, version 2010-08-01; Signature Version 4.

use std::time::{Duration, SystemTime};

use aws_credential_types::provider::ProvideCredentials as _;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::HttpConnector as _;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use hyper::header::CONTENT_TYPE;

use crate::aws::client::{Aws, AwsError, aws_error};

/// A metric value in percent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PercentMetric<'a> {
    /// Name of the metric.
    pub name: &'a str,
    /// Dimensions, as pairs of name and value.
    pub dimensions: &'a [(&'a str, &'a str)],
    /// 0 to 100.
    pub value: f64,
}

impl Aws {
    /// Adds a value to a metric in the namespace `Headwater`.
    pub(crate) async fn put_metric(&self, metric: &PercentMetric<'_>) -> Result<(), AwsError> {
        let refused = |e: Box<dyn std::error::Error + Send + Sync>| AwsError {
            action: ACTION,
            subject: metric.name.to_owned(),
            source: e,
        };
        match tokio::time::timeout(PUT_TIMEOUT, self.send(metric)).await {
            Ok(Ok(200)) => Ok(()),
            Ok(Ok(status)) => Err(refused(format!("CloudWatch answers {status}").into())),
            Ok(Err(e)) => Err(refused(e)),
            Err(e) => Err(aws_error(ACTION, metric.name, e)),
        }
    }

    async fn send(&self, metric: &PercentMetric<'_>) -> Result<u16, Box<dyn std::error::Error + Send + Sync>> {
        let region = self.0.region().ok_or("no region")?.as_ref();
        let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
        let address = format!("https://monitoring.{region}.amazonaws.com{suffix}");
        let address = format!("{}/", self.0.endpoint_url().unwrap_or(&address).trim_end_matches('/'));
        let body = encode_form(metric);
        let identity = self.0.credentials_provider().ok_or("no credentials")?.provide_credentials().await?.into();
        let signing = v4::SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name("monitoring")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()?
            .into();
        let headers = [(CONTENT_TYPE.as_str(), FORM_TYPE)].into_iter();
        let signable = SignableRequest::new("POST", &address, headers, SignableBody::Bytes(body.as_bytes()))?;
        let (instructions, _) = sign(signable, &signing)?.into_parts();
        let request = hyper::Request::post(&address).header(CONTENT_TYPE, FORM_TYPE);
        let mut request = request.body(SdkBody::from(body.as_str()))?;
        instructions.apply_to_request_http1x(&mut request);
        let connector = Connector::builder().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build();
        Ok(connector.call(HttpRequest::try_from(request)?).await?.status().as_u16())
    }
}

fn encode_form(metric: &PercentMetric<'_>) -> String {
    let mut fields = vec![
        ("Action".to_owned(), "PutMetricData".to_owned()),
        ("Version".to_owned(), "2010-08-01".to_owned()),
        ("Namespace".to_owned(), "Headwater".to_owned()),
        (format!("{MEMBER}.MetricName"), metric.name.to_owned()),
        (format!("{MEMBER}.Unit"), "Percent".to_owned()),
        (format!("{MEMBER}.Value"), metric.value.to_string()),
    ];
    for (n, (name, value)) in (1..).zip(metric.dimensions) {
        fields.push((format!("{MEMBER}.Dimensions.member.{n}.Name"), (*name).to_owned()));
        fields.push((format!("{MEMBER}.Dimensions.member.{n}.Value"), (*value).to_owned()));
    }
    let pairs =
        fields.iter().map(|(key, value)| format!("{key}={}", crate::cluster::shared_registry::percent_encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

const ACTION: &str = "cloudwatch:PutMetricData";
const FORM_TYPE: &str = "application/x-www-form-urlencoded";
const MEMBER: &str = "MetricData.member.1";
/// A late value is useless: the next one follows soon.
const PUT_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_is_form_encoded_with_any_characters_in_its_names() {
        let metric =
            PercentMetric { name: "Headroom", dimensions: &[("Cluster", "a&b"), ("Role", "edge")], value: 42.5 };
        let expected = "Action=PutMetricData&Version=2010-08-01&Namespace=Headwater&MetricData.member.1.MetricName=Headroom&\
            MetricData.member.1.Unit=Percent&MetricData.member.1.Value=42.5&MetricData.member.1.Dimensions.member.1.Name=Cluster&\
            MetricData.member.1.Dimensions.member.1.Value=a%26b&MetricData.member.1.Dimensions.member.2.Name=Role&\
            MetricData.member.1.Dimensions.member.2.Value=edge";
        assert_eq!(encode_form(&metric), expected);
    }
}
