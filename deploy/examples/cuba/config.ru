# frozen_string_literal: true

# gem install cuba puma; puma --bind tcp://127.0.0.1:9292
# Loopback: only this pod or host can reach it. This file needs no `jwt`, no `net/http` and no key set.
require 'cuba'
require 'json'

# The identity headers of jwt-sidecar.
class Identity
  def initialize(env)
    @env = env
  end

  # Only a request that came through the sidecar with a valid token has this status.
  def verified?
    @env['HTTP_X_JWT_STATUS'] == 'verified'
  end

  # Percent-encoded UTF-8, nil without the claim. (URI.decode_www_form_component would turn + into a space.)
  def sub
    @env['HTTP_X_JWT_SUB']&.b&.gsub(/%(\h\h)/) { Regexp.last_match(1).hex.chr }&.force_encoding('UTF-8')
  end

  def claims
    JSON.parse(@env['HTTP_X_JWT_CLAIMS'].tr('-_', '+/').unpack1('m').force_encoding('UTF-8'))
  end
end

Cuba.define do
  identity = Identity.new(env)
  res['Content-Type'] = 'application/json'

  on !identity.verified? do
    res.status = 403
    res.write JSON.generate(error: 'Not verified')
  end

  on get, 'protected' do
    res.write JSON.generate(message: 'Access granted', sub: identity.sub, user: identity.claims)
  end
end

run Cuba
