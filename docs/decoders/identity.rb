# Reads what jwt-sidecar sends. Header values are bytes, as Rack has them.
require "json"
require "openssl"

def text(value)
  value.b.gsub(/%(\h\h)/) { $1.hex.chr }.force_encoding("UTF-8")
end

def items(value)
  "#{value},".scan(/([^,]*),/).map { |(item)| text(item) }
end

def base64url(value)
  value.tr("-_", "+/").unpack1("m")
end

def claims(value)
  JSON.parse(base64url(value).force_encoding("UTF-8"))
end

def assertion(token, key_set, issuer, audience, now = Time.now.to_i)
  header, payload, signature = token.split(".")
  alg, kid = claims(header).values_at("alg", "kid")
  jwk = key_set["keys"].find { |key| key["kid"] == kid } or raise "unknown key: fetch the key set again"
  key = OpenSSL::PKey.read(["302a300506032b6570032100"].pack("H*") + base64url(jwk["x"])) # RFC 8410: Ed25519
  good = alg == "EdDSA" && key.verify(nil, base64url(signature), "#{header}.#{payload}")
  said = claims(payload)
  good && said["iss"] == issuer && said["aud"] == audience && said["exp"] > now or raise "not a good assertion"
  said
end

def signed?(method, target, headers, secret, now = Time.now.to_i)
  t, v1 = headers["x-jwt-signature"].to_s.match(/\At=(\d{1,12}),v1=(\h{64})\z/)&.captures
  names = headers.keys.select { |name| name.start_with?("x-jwt-") && name != "x-jwt-signature" }.sort
  lines = names.map { |name| "#{name}:#{headers[name]}\n" }.join
  mac = OpenSSL::HMAC.hexdigest("SHA256", secret, "#{t}\n#{method}\n#{target}\n#{lines}")
  !t.nil? && (now - t.to_i).abs <= 30 && OpenSSL.fixed_length_secure_compare(mac, v1)
end
