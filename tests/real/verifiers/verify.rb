# frozen_string_literal: true

# ruby verify.rb JWKS_URI ISSUER AUDIENCE ALGORITHM < token: its claims, verified by the jwt gem.
require 'json'
require 'jwt'
require 'net/http'

jwks_uri, issuer, audience, algorithm = ARGV
keys = JSON.parse(Net::HTTP.get(URI(jwks_uri)), symbolize_names: true)
claims, = JWT.decode($stdin.read, nil, true, algorithms: [algorithm], jwks: keys,
                                             iss: issuer, verify_iss: true, aud: audience, verify_aud: true)
puts JSON.generate(claims)
