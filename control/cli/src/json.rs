//! Messages of the director as JSON, in the form that protocol buffers have for it, with the fields' own names.
//!
//! Source: protobuf.dev, "ProtoJSON Format"; 64-bit numbers are numbers here, not strings.

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

/// The JSON of a message. `name` is its type's within `uvs.v1`.
///
/// # Panics
/// When the message is of another type.
pub(crate) fn of(name: &str, message: &impl Message) -> Value {
    let message = DynamicMessage::decode(descriptor(name), message.encode_to_vec().as_slice())
        .expect("a message of this type is read as one");
    let options = SerializeOptions::new()
        .skip_default_fields(false)
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .expect("every message has a form in JSON")
}

/// The JSON of a message as text, a line at its end.
pub(crate) fn text(name: &str, message: &impl Message) -> String {
    format!("{:#}\n", of(name, message))
}

/// A message of its JSON. `name` is its type's within `uvs.v1`.
///
/// # Errors
/// When there is no such field, or it has no such value.
///
/// # Panics
/// When the message is of another type.
pub(crate) fn read<M: Message + Default>(name: &str, value: Value) -> serde_json::Result<M> {
    let message = DynamicMessage::deserialize(descriptor(name), value)?;
    Ok(message
        .transcode_to()
        .expect("the message is of the type that its name says"))
}

fn descriptor(name: &str) -> MessageDescriptor {
    let pool = DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET)
        .expect("the .proto files were compiled when this was built");
    pool.get_message_by_name(&format!("uvs.v1.{name}"))
        .expect("the message is one of uvs.v1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1;
    use serde_json::json;

    #[test]
    fn messages_have_names_and_numbers_in_json() {
        let message = v1::PlannedService {
            key: Some(v1::ServiceKey {
                protocol: v1::Protocol::Udp.into(),
                port: 53,
                ..v1::ServiceKey::default()
            }),
            connections_kept: 1 << 60,
            ..v1::PlannedService::default()
        };
        let value = of("PlannedService", &message);
        assert_eq!(value["key"]["protocol"], json!("PROTOCOL_UDP"));
        assert_eq!(value["key"]["address"], json!(""));
        assert_eq!(value["connections_kept"], json!(1_u64 << 60));
        assert_eq!(value["action"], json!("ACTION_UNSPECIFIED"));
    }
}
