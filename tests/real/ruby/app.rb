# frozen_string_literal: true

require 'json'
require 'uri'

# A backend as it looks behind the sidecar: it reads headers and knows no key, signature or token.
module App
  def self.call(env)
    # Whatever did not come through the sidecar, or came anonymously, is refused: the backend fails closed.
    return answer(403, error: 'Not verified') unless env['HTTP_X_JWT_STATUS'] == 'verified'
    return answer(404, error: 'Not found') unless env['PATH_INFO'] == '/protected'

    answer(200, message: 'Access granted', user: {
             sub: text(env['HTTP_X_JWT_SUB']),
             name: text(env['HTTP_X_JWT_NAME']),
             claims: JSON.parse(env['HTTP_X_JWT_CLAIMS'].tr('-_', '+/').unpack1('m'))
           })
  end

  # The sidecar percent-encodes what is not printable ASCII, and `%` itself. (URI.decode_www_form_component would also
  # turn `+` into a space.)
  def self.text(header)
    header && URI::DEFAULT_PARSER.unescape(header).force_encoding(Encoding::UTF_8)
  end

  def self.answer(status, body)
    [status, { 'content-type' => 'application/json' }, [JSON.generate(body)]]
  end
end
