# frozen_string_literal: true

# app/controllers/concerns/identity.rb, for `include Identity` in ApplicationController. Bind Puma to loopback in
# config/puma.rb: bind 'tcp://127.0.0.1:9292'
#
# Then in an action: current_user['sub'], or `user_id` for the text of X-JWT-Sub.
module Identity
  extend ActiveSupport::Concern

  included { before_action :require_identity }

  private

  # Only a request that came through the sidecar with a valid token has this status.
  def require_identity
    render json: { error: 'Not verified' }, status: :forbidden unless request.headers['X-JWT-Status'] == 'verified'
  end

  # Percent-encoded UTF-8, nil without the claim. (URI.decode_www_form_component would turn + into a space.)
  def user_id
    request.headers['X-JWT-Sub']&.b&.gsub(/%(\h\h)/) { Regexp.last_match(1).hex.chr }&.force_encoding('UTF-8')
  end

  def current_user
    @current_user ||=
      JSON.parse(request.headers['X-JWT-Claims'].tr('-_', '+/').unpack1('m').force_encoding('UTF-8'))
  end
end
