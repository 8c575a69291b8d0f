# frozen_string_literal: true

# puma --bind tcp://127.0.0.1:9292
# Loopback: only this pod or host can reach it.
require 'json'
require 'sinatra/base'

class Backend < Sinatra::Base
  set :show_exceptions, false

  helpers do
    # Percent-encoded UTF-8, nil without the claim. (URI.decode_www_form_component would turn + into a space.)
    def text(header)
      header&.b&.gsub(/%(\h\h)/) { Regexp.last_match(1).hex.chr }&.force_encoding('UTF-8')
    end

    def claims
      JSON.parse(request.env['HTTP_X_JWT_CLAIMS'].tr('-_', '+/').unpack1('m').force_encoding('UTF-8'))
    end
  end

  before do
    content_type :json
    # Only a request that came through the sidecar with a valid token has this status.
    halt 403, JSON.generate(error: 'Not verified') unless request.env['HTTP_X_JWT_STATUS'] == 'verified'
  end

  get '/protected' do
    JSON.generate(message: 'Access granted', sub: text(request.env['HTTP_X_JWT_SUB']), user: claims)
  end
end

run Backend
