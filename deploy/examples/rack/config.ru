# frozen_string_literal: true

# puma --bind unix:///run/app/app.sock
# A unix socket, for the sidecar `upstream: unix:///run/app/app.sock`: only users who may open the file can reach it.
require 'json'

# Percent-encoded UTF-8, nil without the claim. (URI.decode_www_form_component would turn + into a space.)
def text(header)
  header&.b&.gsub(/%(\h\h)/) { Regexp.last_match(1).hex.chr }&.force_encoding('UTF-8')
end

def claims(header)
  JSON.parse(header.tr('-_', '+/').unpack1('m').force_encoding('UTF-8'))
end

def answer(status, body)
  [status, { 'content-type' => 'application/json' }, [JSON.generate(body)]]
end

run(lambda do |env|
  # Only a request that came through the sidecar with a valid token has this status.
  next answer(403, error: 'Not verified') unless env['HTTP_X_JWT_STATUS'] == 'verified'
  next answer(404, error: 'Not found') unless env['PATH_INFO'] == '/protected'

  answer(200, message: 'Access granted', sub: text(env['HTTP_X_JWT_SUB']), user: claims(env['HTTP_X_JWT_CLAIMS']))
end)
