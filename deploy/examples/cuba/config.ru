# frozen_string_literal: true

# gem install cuba puma; puma --bind tcp://127.0.0.1:9292
# Loopback: nothing outside this pod or host reaches it. `jwt`, `net/http` and the key set are gone from this file.
require 'cuba'
require 'json'

# What jwt-sidecar says about a request.
class Identity
  def initialize(env)
    @env = env
  end

  # What did not come through the sidecar with a good token has no status, or another.
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
